"""Trainings of every kind that take a fraction of a second, ends of them on the way, and what must be the same then."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

from calm_bench.config import Experiment
from calm_bench.heads import Head
from calm_bench.training import Interrupted, train_autoencoder, train_language_model
from calm_bench.training.checkpoint_files import checkpoints_in, opened
from calm_bench.training_options import DEFAULT_OPTIONS, TrainingOptions

STEPS = 12
TRAINING: dict[str, Any] = {
    "num_steps": STEPS,
    "batch_size": 4,
    "sequence_length": 16,
    "log_every": 5,
    "validate_every": 6,
    "checkpoint_every": 4,
    "warmup_steps": 2,
    "validation_batches": 1,
}
SIZE = {"hidden_size": 8, "intermediate_size": 8}
NETWORK = {"num_blocks": 1, "num_samples": 2, "time_features": 4}
HEADS_TRAINED: dict[str, dict[str, Any]] = {
    "energy": {"kind": "energy", "num_blocks": 1, "noise_size": 4, "num_samples": 2, "num_targets": 4},
    "diffusion": {"kind": "diffusion", **NETWORK},
    "diffusion of the noise": {"kind": "diffusion", "objective": "noise", **NETWORK},
    "flow": {"kind": "flow", **NETWORK},
    "shortcut": {"kind": "shortcut", **NETWORK},
    "mean_flow": {"kind": "mean_flow", **NETWORK},
    "drifting": {"kind": "drifting", "num_blocks": 1, "noise_size": 4, "num_samples": 2, "num_targets": 4},
    "custom": {"kind": "custom", "target": f"{__name__}:PointHead"},
}
AUTOENCODERS_TRAINED: dict[str, dict[str, Any]] = {
    "autoencoder": {},
    "autoencoder that reads the chunk before": {"context_chunks": 1},
}
FAMILIES_TRAINED: dict[str, dict[str, Any]] = {
    "token": {"kind": "token"},
    "patch": {"kind": "patch", "chunk_size": 2},
    "multi_token": {"kind": "multi_token", "chunk_size": 2},
    "block_diffusion": {"kind": "block_diffusion", "chunk_size": 2},
}
"""Families without an autoencoder."""
COMPARING_ROWS = {"unconditional"}
"""Metrics that compare the rows of a micro-batch with each other, and know those that are computed at once."""
TOLERANCE = {"fp32": 1e-5, "bf16": 1e-3}
"""Of a loss: what another order of summation may change. Under bf16 weights that differ in their last bit may round to
neighbours that are 2^-8 apart, which ones is up to the CPU's kernels; other noise changes every loss by percents."""
Train = Callable[[Path, Callable[[], bool]], dict[str, Any]]

TRAINED = [*AUTOENCODERS_TRAINED, *FAMILIES_TRAINED, *HEADS_TRAINED]


class Killed(BaseException):
    """The end of a process, as far as the code under test can tell: nothing may catch it."""


class PointHead(Head):
    """A head from outside: one point, and a parameter that its loss does not use."""

    def __init__(self, hidden_size: int, latent_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, latent_size)
        self.unused = nn.Parameter(torch.ones(2))

    def loss(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        target = target_mean + target_log_std.exp() * torch.randn(target_mean.shape, generator=generator)
        loss = (self.linear(hidden) - target).square().mean()
        return loss, {"squared_error": loss.detach()}

    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return self.linear(hidden).expand(num_samples, *hidden.shape[:-1], -1)


def experiment(what: str, **training: Any) -> Experiment:
    settings = TRAINING | training
    model: dict[str, Any] = {**SIZE, "num_layers": 1, "num_attention_heads": 2, "training": settings}
    head = HEADS_TRAINED.get(what, HEADS_TRAINED["energy"])
    model |= FAMILIES_TRAINED.get(what, {"chunk_size": 2, "head": head})
    autoencoder = {"latent_size": 4, **SIZE, **AUTOENCODERS_TRAINED.get(what, {}), "training": settings}
    return Experiment.model_validate({"autoencoder": autoencoder, "model": model})


def never() -> bool:
    return False


class Trainings:
    """Trains a thing in a folder; the undisturbed training that others are compared with is made once."""

    def __init__(self, tokens: Path, autoencoder: Path, references: Path) -> None:
        self.tokens, self.autoencoder, self._references = tokens, autoencoder, references
        self._results: dict[str, dict[str, Any]] = {}

    def of(self, what: str, options: TrainingOptions = DEFAULT_OPTIONS, **settings: Any) -> Train:
        described = experiment(what, **settings)

        def train(folder: Path, stop: Callable[[], bool] = never) -> dict[str, Any]:
            if what in AUTOENCODERS_TRAINED:
                return train_autoencoder(described, self.tokens, folder, "cpu", stop, options)
            inner = None if what in FAMILIES_TRAINED else self.autoencoder
            return train_language_model(described, self.tokens, inner, folder, "cpu", stop, options)

        return train

    def undisturbed(self, what: str, **settings: Any) -> tuple[dict[str, Any], Path]:
        """Its result and its folder; the number of threads decides its last bits."""
        name = f"{what} {settings} {torch.get_num_threads()}"
        if name not in self._results:
            self._results[name] = self.of(what, **settings)(self._references / name, never)
        return self._results[name], self._references / name

    def assert_ends_like_the_undisturbed(self, folder: Path, what: str, **settings: Any) -> None:
        """The training in ``folder``, which goes on until it ends, gives the same bits."""
        reference, whole = self.undisturbed(what, **settings)
        assert_same(self.of(what, **settings)(folder, never), folder, reference, whole)


def cut(train: Train, folder: Path, how: str, step: int) -> None:
    """Let the training in ``folder`` end after ``step``, politely or not."""
    saved = checkpoints_in(folder / "checkpoints")
    begins = saved[-1].step if saved else 0
    done = iter(range(begins, STEPS))

    def stop() -> bool:
        if next(done) < step:
            return False
        if how == "killed":
            raise Killed
        return True

    if step < STEPS:
        with pytest.raises(Killed if how == "killed" else Interrupted):
            train(folder, stop)
        return
    # Nothing can be written where a file lies in the folder's place.
    (folder / "model").touch()
    with pytest.raises(NotADirectoryError):
        train(folder, stop)
    (folder / "model").unlink()


def state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Of the last checkpoint: weights and optimizer, and the counters but for what tells the time."""
    files = [files for files in checkpoints_in(folder / "checkpoints") if files.step == STEPS][-1]
    assert files.condition() == "intact"
    with opened(files) as stored:
        tensors, counters = {name: stored.whole(name) for name in stored.names()}, stored.counters
    # The lines of metrics hold times, so their length varies.
    return tensors, {name: counters[name] for name in counters.keys() - {"elapsed", "metrics_size"}}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a training, without what depends on the clock."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        del record["time"]
        record["metrics"].pop("tokens_per_second", None)
    return records


def assert_same(result: dict[str, Any], folder: Path, reference: dict[str, Any], whole: Path) -> None:
    """The same bits of weights, optimizer, metrics and result."""
    for mine, theirs in (
        (load_file(folder / "model" / "model.safetensors"), load_file(whole / "model" / "model.safetensors")),
        (state(folder)[0], state(whole)[0]),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert state(folder)[1] == state(whole)[1]
    assert metrics(folder) == metrics(whole)
    timings = {"wall_time_s", "tokens_per_second"}
    assert {k: result[k] for k in result.keys() - timings} == {k: reference[k] for k in reference.keys() - timings}


def assert_alike(
    folder: Path,
    whole: Path,
    result: dict[str, Any],
    reference: dict[str, Any],
    tolerance: float = TOLERANCE["fp32"],
    besides: Collection[str] = (),
) -> None:
    """The same training up to the order of summation: every line of metrics, the model, the result."""
    for mine, theirs in zip(metrics(folder), metrics(whole), strict=True):
        values, expected = mine.pop("metrics"), theirs.pop("metrics")
        assert mine == theirs
        assert values.keys() == expected.keys()
        for name in expected.keys() - set(besides):
            value = expected[name]
            # A loss is a mean and a norm is not: it amplifies what sums before it have left. AdamW, which divides by
            # what small gradients were, does so at every step: after twelve by 1.3e-3 on a processor of 2017.
            own = max(500 * TOLERANCE["fp32"], 10 * tolerance) if name.startswith("grad_norm") else tolerance
            assert values[name] == pytest.approx(value, rel=own, abs=own), name
    models = [load_file(place / "model" / "model.safetensors") for place in (folder, whole)]
    assert models[0].keys() == models[1].keys()
    for name, tensor in models[0].items():
        torch.testing.assert_close(tensor, models[1][name], rtol=1e-3, atol=1e-3)
    assert result.keys() == reference.keys()
    for name in ("steps", "tokens", "training_flops", "parameters", "plateau_steps"):
        assert result[name] == reference[name]
