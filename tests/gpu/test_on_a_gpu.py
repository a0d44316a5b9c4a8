"""All that is trained, sampled, scored and estimated goes through on a GPU, without mixing devices.

Whatever registers itself as a family, a head or a scorer is gone through too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from calm_bench import blockwise
from calm_bench.autoencoder import load_autoencoder
from calm_bench.config import Experiment, LanguageModel
from calm_bench.families.block_diffusion import most_masked
from calm_bench.lm import Calm, ChunkLanguageModel
from calm_bench.lm.block_diffusion import BlockDiffusionModel
from calm_bench.lm.folder import build_language_model, load_language_model
from calm_bench.sampling.generate import generate_batch
from calm_bench.sampling.temperature import Decoding
from calm_bench.seeding import generator
from calm_bench.training import Interrupted, train_autoencoder, train_language_model
from calm_bench.training.speed import autoencoder_speed, language_model_speed
from evals.adapters.hugging_face import HuggingFaceSampler
from evals.cross_entropy import cross_entropy
from evals.estimators import Estimator, score_windows
from evals.samplers import ModelSampler
from evals.scorers import SCORERS
from evals.scorers.scoring import Text, score_texts
from tests.evals.tiny_models import tiny_model
from tests.gpu.pretended_gpu import GPU, DevicesMixed, PretendedGpu
from tests.gpu.small_models import (
    AUTOENCODER_SIZES,
    CHUNK_SIZE,
    HEAD_KINDS,
    LANGUAGE_MODELS,
    LENGTH,
    VOCAB_SIZE,
    language_model,
    settings_of,
    tokens,
)

# A second or more of the CPU for each kind.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Mismatch dtype")]

TRAINING = {
    "num_steps": 4,
    "batch_size": 4,
    "sequence_length": 16,
    "gradient_accumulation": 2,
    "log_every": 2,
    "validate_every": 2,
    "checkpoint_every": 2,
    "warmup_steps": 1,
    "validation_batches": 1,
}


def experiment(kind: str) -> Experiment:
    settings = settings_of("energy" if kind == "autoencoder" else kind)
    autoencoder = {**AUTOENCODER_SIZES, "training": TRAINING}
    return Experiment.model_validate({"autoencoder": autoencoder, "model": {**settings, "training": TRAINING}})


def stopped_and_resumed(train: Callable[[Callable[[], bool]], dict[str, Any]]) -> dict[str, Any]:
    """What a training gives that is stopped after two steps and gone on with."""
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        train(lambda: next(asked))
    return train(lambda: False)


@pytest.fixture(scope="module")
def autoencoder_folder(tokens_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    train_autoencoder(experiment("autoencoder"), tokens_folder, folder, "cpu", lambda: False)
    return folder


def test_an_autoencoder_is_trained_stopped_and_resumed(gpu: PretendedGpu, tokens_folder: Path, tmp_path: Path) -> None:
    described = experiment("autoencoder")
    report = stopped_and_resumed(lambda stop: train_autoencoder(described, tokens_folder, tmp_path, GPU, stop))
    assert report["arithmetic"] == "bf16 on cuda"
    assert np.isfinite(report["final_loss"])
    assert 0 <= report["accuracy"] <= 1
    assert load_autoencoder(tmp_path / "model").chunk_size == CHUNK_SIZE


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_model_is_trained_stopped_and_resumed(
    autoencoder_folder: Path, gpu: PretendedGpu, kind: str, tokens_folder: Path, tmp_path: Path
) -> None:
    described, folder = experiment(kind), tmp_path / "model"
    inner = autoencoder_folder if described.model.needs_autoencoder else None
    report = stopped_and_resumed(lambda stop: train_language_model(described, tokens_folder, inner, folder, GPU, stop))
    assert report["arithmetic"] == "bf16 on cuda"
    assert np.isfinite(report["final_loss"])
    loaded = load_language_model(folder / "model", GPU)
    assert all(map(gpu.holds, loaded.parameters()))


def test_a_step_that_mixes_devices_is_found(gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that somebody forgot to move, in a model that trains on the CPU without complaint."""
    model = language_model("energy")
    embed = ChunkLanguageModel.hidden_states
    forgotten = torch.arange(LENGTH // CHUNK_SIZE)
    monkeypatch.setattr(
        ChunkLanguageModel,
        "hidden_states",
        lambda self, *rest: embed(self, *rest).index_select(1, forgotten[: embed(self, *rest).shape[1]]),
    )
    model.loss(tokens(2), Generator())
    there = tokens(2).to(GPU)
    with pytest.raises(DevicesMixed, match="index_select"):
        model.to(GPU).loss(there, generator(0, device=GPU))


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_model_is_scored_by_every_estimator(gpu: PretendedGpu, kind: str) -> None:
    sampler, windows = ModelSampler(language_model(kind).to(GPU).eval()), tokens(2).numpy()
    positions = list(range(CHUNK_SIZE, LENGTH - 3 * CHUNK_SIZE + 1, CHUNK_SIZE))
    for estimator in get_args(Estimator):
        if estimator in ("exact", "two-prefix") and not sampler.has_probabilities:
            continue
        found = score_windows(sampler, windows, positions, 4, (1, 2, 3, 4), [1, 2], estimator)
        assert np.isfinite(found.scores).all(), estimator


class OneText:
    """Random tokens in documents of eight."""

    vocab_size = VOCAB_SIZE

    def __init__(self) -> None:
        self._tokens = tokens(4).flatten().numpy()

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, span: slice) -> Any:
        return self._tokens[span]

    @property
    def document_ends(self) -> Any:
        return np.arange(8, len(self._tokens) + 1, 8)

    def document_of(self, positions: Any) -> Any:
        return np.asarray(positions) // 8


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_the_cross_entropy_of_a_model_is_taken(gpu: PretendedGpu, kind: str) -> None:
    found = cross_entropy(language_model(kind).to(GPU).eval(), OneText(), [0, LENGTH], LENGTH, CHUNK_SIZE, 3, 0)
    assert np.isfinite(found.value)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_text_is_generated_at_every_temperature(gpu: PretendedGpu, kind: str) -> None:
    model = language_model(kind).to(GPU).eval()
    prompts = [[1, 2, 3], [4, 5, 6, 7], []]
    # A first token that is known is seldom drawn by a model that nobody trained, so the draws are few.
    ways = (
        Decoding(max_draws=64),
        Decoding(0.5, "exact", max_draws=16),
        Decoding(0.7, "auto", 8, max_draws=64),
        Decoding(0.5, "batch", 8, max_draws=64),
    )
    for decoding in ways:
        generators = [generator(index, device=GPU) for index in range(len(prompts))]
        written = generate_batch(model, prompts, 4, generators, VOCAB_SIZE - 1, decoding)
        assert all(row.ended or len(row.tokens) == 4 for row in written)
    drawn = ModelSampler(model, 0).sample([np.array([1, 2, 3]), np.array([5])], 3, 4, [1, 2])
    assert drawn.shape == (2, 3, 4)


# A bound of a likelihood is no score of a choice.
@pytest.mark.parametrize("kind", [kind for kind in LANGUAGE_MODELS if kind != "block_diffusion"])
def test_choices_are_scored_by_every_scorer(gpu: PretendedGpu, kind: str) -> None:
    model = language_model(kind).to(GPU).eval()
    texts = [Text((1, 2, 3, 4, 5, 6, 7), 4, "a"), Text((1, 2, 3, 4, 5, 6), 2, "b")]
    scorers = [SCORERS.get(name) for name in SCORERS.names()] if isinstance(model, Calm) else [None]
    for scorer in scorers:
        assert all(np.isfinite(score.value) for score in score_texts(model, texts, scorer, 4))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_models_of_transformers_are_scored(gpu: PretendedGpu, architecture: str) -> None:
    sampler = HuggingFaceSampler(tiny_model(architecture, VOCAB_SIZE).to(GPU))
    estimators: tuple[Estimator, ...] = ("exact", "all-pairs")
    for estimator in estimators:
        found = score_windows(sampler, tokens(2).numpy(), [8, 16], 2, (1, 2, 3, 4), [1, 2], estimator)
        assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("kind", ["token", "energy"])
def test_speed_is_measured(gpu: PretendedGpu, kind: str) -> None:
    speed, _ = language_model_speed(experiment(kind), VOCAB_SIZE, GPU, 0.01)
    assert speed.step > 0
    if kind == "energy":
        assert autoencoder_speed(experiment(kind), VOCAB_SIZE, GPU, 0.01).step > 0


def test_a_gpu_has_thousands_of_rows_in_a_block(gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU has few: it would read the weights more often than multiply."""
    rows: list[int] = []
    softmax = blockwise._softmax

    def noted(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        rows.append(len(logits))
        return softmax(logits, targets)

    monkeypatch.setattr(blockwise, "_softmax", noted)
    monkeypatch.setattr(blockwise, "MAX_LOGITS", 8 * VOCAB_SIZE)
    monkeypatch.setattr(blockwise, "MAX_LOGITS_ON_GPU", 64 * VOCAB_SIZE)
    for device, expected in (("cpu", [8] * 16), (GPU, [64, 64])):
        rows.clear()
        model = language_model("token").to(device)
        model.loss(torch.zeros((8, 17), dtype=torch.long, device=device))
        assert rows == expected


def test_every_head_is_gone_through() -> None:
    assert {"energy", "diffusion", "flow", "shortcut"} < set(HEAD_KINDS)


def test_a_fixed_number_of_tokens_gives_the_loss_of_the_masked_ones(gpu: PretendedGpu) -> None:
    config = LanguageModel.model_validate({**settings_of("block_diffusion"), "chunk_size": 4})
    model = build_language_model(config, VOCAB_SIZE, None, seed=0)
    assert isinstance(model, BlockDiffusionModel)
    batch = tokens(16)
    uniform = torch.rand((16 * (LENGTH // 4 - 1), 5), generator=Generator().manual_seed(1))
    assert most_masked(len(uniform), 4) < 4 * len(uniform), "fewer than all are computed"
    of_masked, _ = model.loss_given(batch, uniform)
    of_fixed, _ = model.to(GPU).loss_given(batch.to(GPU), uniform.to(GPU))
    assert of_fixed.item() == pytest.approx(of_masked.item(), rel=1e-6)
