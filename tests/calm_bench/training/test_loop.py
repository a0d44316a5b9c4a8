"""One loop for three trainings: budgets, exact resumption, and stopping when the loss breaks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from calm_bench.config import Corpus, Experiment, Markov, Tokens, Trajectory
from calm_bench.corpora import write_corpus
from calm_bench.overrides import apply_settings
from calm_bench.tokens import write_tokens
from calm_bench.training import Diverged, Interrupted, NonFiniteLoss, train_autoencoder, train_language_model
from calm_bench.training.snapshots import kept_snapshots

SETTINGS: dict[str, Any] = {
    "autoencoder": {
        "latent_size": 4,
        "hidden_size": 16,
        "intermediate_size": 24,
        "training": {"num_steps": 12, "batch_size": 4, "sequence_length": 32},
    },
    "model": {
        "chunk_size": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_layers": 1,
        "num_attention_heads": 2,
        "head": {"num_blocks": 1, "noise_size": 4, "num_samples": 2, "num_targets": 4},
        "training": {"num_steps": 12, "batch_size": 4, "sequence_length": 32},
    },
}
EVERY_FIVE = {"log_every": 5, "validate_every": 6, "checkpoint_every": 4, "warmup_steps": 2, "validation_batches": 1}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    markov = Markov(num_documents=60, document_length=80)
    write_corpus(Corpus(source="markov", markov=markov), folder / "corpus")
    write_tokens(Tokens(), folder / "corpus", folder / "tokens")
    return folder / "tokens"


def experiment(kind: str = "calm", **training: Any) -> Experiment:
    data = json.loads(json.dumps(SETTINGS))
    data["model"]["kind"] = kind
    for part in ("autoencoder", "model"):
        data[part]["training"] |= EVERY_FIVE | training
    return Experiment.model_validate(data)


def never() -> bool:
    return False


def after(checks: int) -> Callable[[], bool]:
    """A stop signal that comes at the given check, which is once a step."""
    left = iter(range(checks))
    return lambda: next(left, None) is None


def trained(kind: str, what: Experiment, tokens: Path, autoencoder: Path, folder: Path, stop: Any = never) -> Any:
    if kind == "autoencoder":
        return train_autoencoder(what, tokens, folder, "cpu", stop)
    return train_language_model(what, tokens, None if kind == "token" else autoencoder, folder, "cpu", stop)


@pytest.fixture(scope="module")
def autoencoder(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    train_autoencoder(experiment(), tokens, folder, "cpu", never)
    return folder


@pytest.mark.parametrize("kind", ["calm", "token"])
def test_models_kept_along_the_way_are_those_of_an_undisturbed_training(
    kind: str, tokens: Path, autoencoder: Path, tmp_path: Path
) -> None:
    what = experiment(kind).model_copy(update={"trajectory": Trajectory(snapshots=4)})
    trained(kind, what, tokens, autoencoder, tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(kind, what, tokens, autoencoder, tmp_path / "cut", after(7))
    trained(kind, what, tokens, autoencoder, tmp_path / "cut")
    whole, cut = (kept_snapshots(tmp_path / name) for name in ("whole", "cut"))
    assert list(whole) == list(cut) == [3, 6, 9, 12]
    for step, folder in whole.items():
        weights = [load_file(place / "model.safetensors") for place in (folder, cut[step])]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    finished = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    last, first = (load_file(whole[step] / "model.safetensors") for step in (12, 3))
    assert all(torch.equal(last[name], finished[name]) for name in finished)
    assert not all(torch.equal(first[name], finished[name]) for name in finished)


def test_stopping_again_before_the_first_new_step_keeps_the_checkpoint(tokens: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Interrupted):
            train_language_model(experiment("token"), tokens, None, tmp_path, "cpu", after(3))
    with pytest.raises(Interrupted):
        train_language_model(experiment("token"), tokens, None, tmp_path, "cpu", after(0))
    result = train_language_model(experiment("token"), tokens, None, tmp_path, "cpu", never)
    assert result["steps"] == 12


def test_only_the_newest_checkpoints_are_kept(tokens: Path, tmp_path: Path) -> None:
    train_language_model(experiment("token"), tokens, None, tmp_path, "cpu", never)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{step:09d}.{ending}" for step in (8, 12) for ending in ("safetensors", "sha256")]


@pytest.mark.parametrize(
    ("budget", "steps"), [({"num_steps": 3}, 3), ({"num_steps": None, "num_tokens": 5 * 4 * 32}, 5)]
)
def test_budgets(budget: dict[str, Any], steps: int, tokens: Path, tmp_path: Path) -> None:
    result = train_language_model(experiment("token", **budget), tokens, None, tmp_path, "cpu", never)
    assert (result["steps"], result["tokens"]) == (steps, steps * 4 * 32)


def test_equal_flops_cost_equal_flops(tokens: Path, autoencoder: Path, tmp_path: Path) -> None:
    spent = {}
    for kind in ("calm", "token"):
        what = experiment(kind, num_steps=None, num_flops=5e7)
        result = trained(kind, what, tokens, autoencoder, tmp_path / kind)
        spent[kind] = result["training_flops"]
        assert result["training_flops"] == pytest.approx(sum(result["flops_by_part"].values()))
    one_step = 5e7 / 10
    assert spent["calm"] == pytest.approx(5e7, abs=one_step)
    assert spent["token"] == pytest.approx(5e7, abs=one_step)


def test_fidelity_and_diversity_are_logged_apart(tokens: Path, autoencoder: Path, tmp_path: Path) -> None:
    trained("calm", experiment(), tokens, autoencoder, tmp_path)
    for record in metrics(tmp_path):
        assert record["metrics"]["loss"] == pytest.approx(
            record["metrics"]["fidelity"] - record["metrics"]["diversity"], rel=1e-5
        )


@pytest.mark.parametrize("kind", ["calm", "token"])
def test_gradient_norms_of_the_parts_make_up_the_whole(
    kind: str, tokens: Path, autoencoder: Path, tmp_path: Path
) -> None:
    # A clip below every norm: what is logged is what the loss gave, not what was left of it.
    trained(kind, experiment(kind, clip_norm=1e-3), tokens, autoencoder, tmp_path)
    lines = [record["metrics"] for record in metrics(tmp_path) if record["split"] == "train"]
    assert len(lines) == 3
    for line in lines:
        parts = [line["grad_norm_head"], line["grad_norm_backbone"]]
        assert min(parts) > 0
        assert math.hypot(*parts) == pytest.approx(line["grad_norm"], rel=1e-5)


def test_the_autoencoder_is_probed(tokens: Path, tmp_path: Path) -> None:
    result = train_autoencoder(experiment(), tokens, tmp_path, "cpu", never)
    probes = json.loads(json.dumps(result["probes"]))
    assert [point["level"] for point in probes["bits"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(probes["collapsed"]["kl"]) == probes["latent_size"] == 4
    assert probes["posterior"]["num_tokens"] <= result["accuracy_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(("concentration", "is_noise"), [(1e6, True), (0.05, False)])
def test_the_plateau_alarm_sounds_on_noise_and_not_on_language(
    concentration: float, is_noise: bool, tmp_path: Path
) -> None:
    """Letters that do not depend on the letters before them leave nothing to learn from a context."""
    markov = Markov(alphabet_size=20, concentration=concentration, num_documents=200)
    write_corpus(Corpus(source="markov", markov=markov), tmp_path / "corpus")
    write_tokens(Tokens(), tmp_path / "corpus", tmp_path / "tokens")
    training = {"batch_size": 8, "sequence_length": 64, "log_every": 10, "warmup_steps": 20, "validation_batches": 1}
    what = Experiment.model_validate(
        {
            "autoencoder": {"latent_size": 16, "hidden_size": 32, "training": {**training, "num_steps": 100}},
            "model": {
                "chunk_size": 2,
                "hidden_size": 32,
                "num_layers": 1,
                "head": {"num_blocks": 1, "num_samples": 4, "num_targets": 16},
                "training": {**training, "num_steps": 250},
            },
        }
    )
    train_autoencoder(what, tmp_path / "tokens", tmp_path / "autoencoder", "cpu", never)
    result = trained("calm", what, tmp_path / "tokens", tmp_path / "autoencoder", tmp_path / "model")
    assert (result["plateau_steps"] > 0) is is_noise


def test_training_learns(tokens: Path, tmp_path: Path) -> None:
    what = experiment("token", num_steps=60, learning_rate=1e-2)
    train_language_model(what, tokens, None, tmp_path, "cpu", never)
    losses = [r["metrics"]["loss"] for r in metrics(tmp_path) if r["split"] == "validation"]
    assert losses[-1] < 0.6 * losses[0]


def test_an_infinite_learning_rate_stops_with_advice(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"lower model\.training\.learning_rate"):
        train_language_model(experiment("token", learning_rate=1e30), tokens, None, tmp_path, "cpu", never)
    # What is broken never replaces a good checkpoint.
    for path in (tmp_path / "checkpoints").glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_precision_is_advised_where_it_is_not_fp32_already(tokens: Path, tmp_path: Path) -> None:
    for precision, named in (("auto", False), ("fp32", False), ("bf16", True)):
        what = experiment("token", learning_rate=1e30, precision=precision)
        with pytest.raises(NonFiniteLoss) as stopped:
            train_language_model(what, tokens, None, tmp_path / precision, "cpu", never)
        assert ("model.training.precision=fp32" in str(stopped.value)) is named, precision


def test_a_diverging_loss_stops_with_advice_that_helps(tokens: Path, tmp_path: Path) -> None:
    what = experiment("token", learning_rate=1.0, divergence_factor=1.01, warmup_steps=0, clip_norm=1e6, log_every=1)
    with pytest.raises(Diverged) as stopped:
        train_language_model(what, tokens, None, tmp_path / "as-it-was", "cpu", never)
    named = re.search(r"lower (\S+) or raise (\S+)$", str(stopped.value))
    assert named is not None
    for setting, value in zip(named.groups(), (1e-3, 1000), strict=True):
        train_language_model(apply_settings(what, {setting: value}), tokens, None, tmp_path / setting, "cpu", never)


def test_the_frozen_autoencoder_stays_as_it_was(tokens: Path, autoencoder: Path, tmp_path: Path) -> None:
    trained("calm", experiment(), tokens, autoencoder, tmp_path)
    before = load_file(autoencoder / "model" / "model.safetensors")
    after_training = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(tensor, after_training[f"autoencoder.{name}"]) for name, tensor in before.items())


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a training, without what depends on the clock."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        del record["time"]
        record["metrics"].pop("tokens_per_second", None)
    return records
