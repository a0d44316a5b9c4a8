"""Steps, samples and scores wait for a GPU no more often than they must."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from calm_bench import blockwise
from calm_bench.config import Training
from calm_bench.lm import Calm, ChunkLanguageModel, tree
from calm_bench.lm.exact import ExactModel
from calm_bench.sampling.continuations import sample_continuations
from calm_bench.sampling.generate import generate_batch
from calm_bench.seeding import generator
from calm_bench.training.autoencoder import training_loss
from calm_bench.training.checkpoint import Checkpoints, Counters
from calm_bench.training.loop import Loop
from calm_bench.training.recorder import METRICS_FILE
from calm_bench.training.task import Loss, TrainingTask
from evals.estimators import Estimator, score_windows
from evals.samplers import ModelSampler
from tests.gpu.pretended_gpu import GPU, PretendedGpu
from tests.gpu.small_models import (
    CHUNK_SIZE,
    HEAD_KINDS,
    LANGUAGE_MODELS,
    LENGTH,
    VOCAB_SIZE,
    autoencoder,
    language_model,
    tokens,
)

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype")


class SameBatch:
    """The same tokens at every step."""

    def take(self, rows: Tensor) -> Tensor:
        return tokens(4)[rows]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def training(kind: str, folder: Path, num_steps: int, log_every: int) -> Loop:
    """A training on the GPU of two micro-batches a step, validated and saved at its end."""
    model: Any = autoencoder() if kind == "autoencoder" else language_model(kind)
    model.to(GPU)
    loss: Loss = training_loss(model) if kind == "autoencoder" else model.loss
    config = Training(
        num_steps=num_steps, batch_size=4, sequence_length=LENGTH, gradient_accumulation=2, log_every=log_every
    )
    task = TrainingTask(model, loss, loss, tokens(1), 1.0)
    return Loop(task, SameBatch(), config, folder, 0, GPU, lambda: False)


@pytest.mark.parametrize("kind", ["autoencoder", *LANGUAGE_MODELS])
def test_a_plain_step_waits_for_nothing(gpu: PretendedGpu, kind: str, tmp_path: Path) -> None:
    """Its batch comes from page-locked memory, while the step before is still computed."""
    loop = training(kind, tmp_path, 100, log_every=50)
    loop.train_step()  # the optimizer's state is made
    gpu.waits.clear()
    loop.train_step()
    assert not gpu.waits


def test_a_wait_planted_into_a_step_is_found(
    gpu: PretendedGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = training("energy", tmp_path, 100, log_every=50)
    loop.train_step()
    hidden_states = ChunkLanguageModel.hidden_states

    def looked_at(self: ChunkLanguageModel, *rest: Any) -> Tensor:
        hidden = hidden_states(self, *rest)
        return hidden if hidden.abs().max() < 1e6 else hidden.clamp(-1e6, 1e6)

    monkeypatch.setattr(ChunkLanguageModel, "hidden_states", looked_at)
    gpu.waits.clear()
    loop.train_step()
    assert gpu.waits.total() == 2, "once a micro-batch"


def test_a_logged_step_fetches_once(gpu: PretendedGpu, tmp_path: Path) -> None:
    counts = []
    for log_every in (1, 4):
        gpu.waits.clear()
        training("energy", tmp_path / str(log_every), 4, log_every).run()
        counts.append(gpu.waits.total())
    assert counts[0] - counts[1] == 3


@pytest.mark.parametrize("kind", HEAD_KINDS)
@torch.no_grad()
def test_a_head_samples_without_a_wait(gpu: PretendedGpu, kind: str) -> None:
    model = language_model(kind).to(GPU)
    assert isinstance(model, Calm)
    hidden = torch.randn(3, 32, device=GPU)
    model.head.sample(hidden, 2, generator(0, device=GPU))  # what a head keeps on the device is moved there once
    gpu.waits.clear()
    model.head.sample(hidden, 2, generator(0, device=GPU))
    assert not gpu.waits


def test_a_checkpoint_waits_once_for_its_copies(gpu: PretendedGpu, tmp_path: Path) -> None:
    """Into page-locked memory, which is kept for the next one."""
    loop = training("energy", tmp_path, 100, log_every=50)
    loop.train_step()
    checkpoints = Checkpoints(tmp_path / "saved")
    for step in (1, 2):
        gpu.waits.clear()
        checkpoints.save(loop.trainee.module, loop.optimizer, Counters(step, 1.0, 0, {}, {}))
        assert [where.partition(" at ")[0] for where in gpu.waits.elements()] == ["synchronize"]
    checkpoints.join()


def test_a_checkpoint_waits_for_the_device_that_it_copies_from(
    gpu: PretendedGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for the one that is current, which another GPU may be: what is written then is not copied yet."""
    waited: list[tuple[torch.device, ...]] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *devices: waited.append(devices))
    loop = training("token", tmp_path, 100, log_every=50)
    loop.train_step()
    checkpoints = Checkpoints(tmp_path / "saved")
    checkpoints.save(loop.trainee.module, loop.optimizer, Counters(1, 1.0, 0, {}, {}))
    checkpoints.join()
    assert waited == [(torch.device(GPU),)]


def test_what_is_told_on_the_cpu_is_logged_beside_what_is_on_the_gpu(gpu: PretendedGpu, tmp_path: Path) -> None:
    """A part without any parameter has the norm of nothing; a head from elsewhere may tell any number."""
    model = language_model("token").to(GPU)

    def loss(batch: Tensor, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        found, terms = model.loss(batch, noise)
        return found, {**terms, "constant": torch.tensor(0.5)}

    parts = {"head": [], "backbone": [name for name, _ in model.named_parameters()]}
    task = TrainingTask(model, loss, loss, tokens(1), 1.0, parts)
    config = Training(num_steps=2, batch_size=4, sequence_length=LENGTH, gradient_accumulation=2, log_every=1)
    Loop(task, SameBatch(), config, tmp_path, 0, GPU, lambda: False).run()
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    logged = [line["metrics"] for line in lines if line["split"] == "train"]
    assert len(logged) == 2
    for metrics in logged:
        assert metrics["constant"] == 0.5
        assert metrics["grad_norm_head"] == 0.0
        assert metrics["grad_norm_backbone"] == pytest.approx(metrics["grad_norm"])


def shallow(kind: str, num_layers: int) -> ChunkLanguageModel:
    model = language_model(kind).eval()
    model.backbone.layers = model.backbone.layers[:num_layers]
    return model.to(GPU)


@pytest.mark.parametrize("kind", ["token", "energy"])
def test_scoring_waits_as_often_whatever_the_number_of_layers(gpu: PretendedGpu, kind: str) -> None:
    found: list[Counter[str]] = []
    for num_layers in (2, 1):
        model, windows = shallow(kind, num_layers), tokens(2).to(GPU)
        generators = [generator(index, device=GPU) for index in range(2)]
        gpu.waits.clear()
        sample_continuations(model, windows, [CHUNK_SIZE, 16, 24], 3, 2 * CHUNK_SIZE, generators)
        found.append(Counter(gpu.waits))
    assert found[0] == found[1]


def test_a_gpu_attends_from_many_continuations_at_once(gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU's few at a time would be thousands of launches for a GPU."""
    calls: Counter[str] = Counter()
    attended = tree._attended

    def counted(side: Any, query: Tensor, *rest: Tensor) -> Tensor:
        calls[query.device.type] += 1
        return attended(side, query, *rest)

    monkeypatch.setattr(tree, "_attended", counted)
    monkeypatch.setattr(tree, "MAX_SCORES", 1 << 9)
    for device in ("cpu", GPU):
        model, windows = language_model("token").eval().to(device), tokens(2).to(device)
        generators = [generator(index, device=device) for index in range(2)]
        sample_continuations(model, windows, [8, 16, 24], 6, 3, generators)
    # Two further tokens, in two layers.
    assert calls["cuda"] == 4
    assert calls["cpu"] > 8 * calls["cuda"], calls


SCORED_BATCH = 40
"""Waits of a scored batch of windows, at the most; a backbone of any depth."""


def waits_of_scoring(
    gpu: PretendedGpu, model: ChunkLanguageModel, num_samples: int, protocol: Literal["matched", "paper"] = "matched"
) -> Counter[str]:
    """Of a batch of three windows, at every chunk that leaves room for the chunks of an n-gram."""
    size, is_exact = model.chunk_size, isinstance(model, ExactModel)
    estimator: Estimator = "exact" if is_exact else "all-pairs"
    if protocol == "paper":
        estimator = "two-prefix" if is_exact else "two-sample" if size >= 4 else "teacher-forced"
    sampler, windows = ModelSampler(model.eval().to(GPU)), tokens(3).numpy()
    positions = list(range(size, LENGTH - 4 - size + 1, size))
    arguments = (windows, positions, num_samples, (1, 2, 3, 4), [1, 2, 3], estimator)
    score_windows(sampler, *arguments)  # the decoder's weights are checked once
    gpu.waits.clear()
    score_windows(sampler, *arguments)
    return Counter(gpu.waits)


@pytest.mark.parametrize("protocol", ["matched", "paper"])
@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_scored_batch_waits_seldom(gpu: PretendedGpu, kind: str, protocol: Literal["matched", "paper"]) -> None:
    """Every model over two chunks of an n-gram, by the estimators of both protocols."""
    waits = waits_of_scoring(gpu, language_model(kind), 4, protocol)
    assert waits.total() < SCORED_BATCH, waits


CHUNKS = ["patch", "multi_token", "block_diffusion", "energy"]


@pytest.mark.parametrize(("kind", "size"), [("token", 1), *((kind, size) for kind in CHUNKS for size in (2, 4))])
def test_a_scored_batch_waits_as_often_whatever_its_size(
    gpu: PretendedGpu, kind: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More layers, thousands of samples, and a vocabulary of which few rows are held at once."""
    few = waits_of_scoring(gpu, language_model(kind, chunk_size=size, num_layers=1), 4)
    monkeypatch.setattr(blockwise, "CACHED_LOGITS_ON_GPU", 8 * VOCAB_SIZE)
    many = waits_of_scoring(gpu, language_model(kind, chunk_size=size, num_layers=3), 110)
    assert many.total() < SCORED_BATCH, many
    # Where few samples agree, none may be left to go on.
    assert many.total() <= few.total() + 6, many - few


GENERATED_STEP = 1
"""Waits of a step for all rows: what was drawn, together with whether what the model computed is finite."""
ENDED = 2
"""Waits where a row ends, for those that go on."""
START = 4
"""Waits of a generation besides, for its prompts and for whether its weights are finite."""


@pytest.mark.parametrize("kind", ["token", "patch", "block_diffusion", "energy", "diffusion"])
def test_a_generated_step_waits_as_often_whatever_the_number_of_rows(gpu: PretendedGpu, kind: str) -> None:
    model = language_model(kind).eval().to(GPU)
    # The first time what a head keeps on the device is moved there.
    for rows in (1, 1, 6):
        gpu.waits.clear()
        generators = [generator(index, device=GPU) for index in range(rows)]
        written = generate_batch(model, [[1, 2, 3, 4]] * rows, 8 * model.chunk_size, generators, eos_id=7)
        steps = max(len(row.tokens) // model.chunk_size + row.ended for row in written)
        ended = sum(row.ended for row in written)
    assert steps > 3
    assert gpu.waits.total() <= START + GENERATED_STEP * steps + ENDED * ended, gpu.waits
