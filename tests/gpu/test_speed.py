"""Timings of a machine wait for its GPU, compute what fits into memory, and validate as trainings do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.config import Experiment
from calm_bench.lm import TokenModel
from calm_bench.sampling.generate import Generated
from calm_bench.training import language_model as language_model_training
from calm_bench.training.speed import language_model_speed, timed
from pipelines.study.kinds.language_model_workload import LanguageModelWorkload
from pipelines.study.kinds.measured_speed import measure_language_model
from tests.gpu.pretended_gpu import GPU, PretendedGpu
from tests.gpu.small_models import LENGTH, VOCAB_SIZE, settings_of

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype")


def described(**training: Any) -> Experiment:
    sizes = {"num_steps": 10, "batch_size": 8, "gradient_accumulation": 2, "sequence_length": LENGTH}
    return Experiment.model_validate({"model": {**settings_of("token"), "training": {**sizes, **training}}})


def test_time_is_taken_when_the_gpu_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("wait"))
    timed(lambda: events.append("work"), GPU, 0.0)
    assert events == ["work", "wait", "work", "wait", "work", "wait"], "the warm-up is not in the first time"


def test_a_window_of_cross_entropy_is_waited_for(gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it gives stays on the GPU, so nothing else waits."""
    experiment = described().model_copy(update={"samples": Experiment().samples.model_copy(update={"num_prompts": 0})})
    trajectory = Experiment.model_validate({**experiment.model_dump(), "trajectory": {"snapshots": 2}})
    short = trajectory.evaluation.model_copy(update={"context_length": LENGTH, "first_position": 8})
    begun: list[int] = []

    def synchronized() -> int:
        return sum(count for where, count in gpu.waits.items() if where.startswith("synchronize"))

    def noted(*given: Any) -> Tensor:
        begun.append(synchronized())
        return torch.zeros(1, device=GPU)

    monkeypatch.setattr("evals.cross_entropy.chunk_log_likelihoods", noted)
    experiment = trajectory.model_copy(update={"evaluation": short})
    measure_language_model(LanguageModelWorkload(experiment, VOCAB_SIZE), GPU, 0.001)
    assert synchronized() == begun[0] + 1


@pytest.mark.parametrize(("device", "chunks", "times"), [("cpu", 4, 1), (GPU, 12, 2)])
def test_a_gpu_writes_whole_texts_and_scores_twice(
    device: str, chunks: int, times: int, gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first steps are recorded, and what it computes for the first time is loaded."""
    lengths: list[int] = []
    scored: list[int] = []

    def written(model: Any, prompts: Any, length: int, *rest: Any) -> list[Generated]:
        lengths.append(length)
        return [Generated([0] * length, False, 0, 0, False, 0)]

    monkeypatch.setattr("calm_bench.sampling.generate.generate_batch", written)
    monkeypatch.setattr("evals.estimators.score_windows", lambda sampler, windows, *rest: scored.append(len(windows)))
    samples = Experiment().samples.model_copy(update={"num_tokens": 12, "temperatures": (1.0,)})
    experiment = described().model_copy(update={"samples": samples})
    measure_language_model(LanguageModelWorkload(experiment, VOCAB_SIZE), device, 0.001)
    assert lengths == [chunks]
    assert len(scored) == times


@pytest.mark.parametrize(("available", "rows"), [(1e12, 4), (1.0, 1)])
def test_as_many_sequences_are_timed_as_fit(available: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool, bool]] = []
    loss = TokenModel.loss

    def noted(self: TokenModel, tokens: Tensor, noise: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append((len(tokens), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return loss(self, tokens, noise)

    monkeypatch.setattr(language_model_training, "available_memory", lambda device: available)
    monkeypatch.setattr(TokenModel, "loss", noted)
    speed, _ = language_model_speed(described(precision="bf16"), VOCAB_SIZE, "cpu", 0.0)
    assert {count for count, _, _ in seen} == {rows}
    assert {grad for _, grad, _ in seen} == {True, False}
    assert all(is_bf16 for _, _, is_bf16 in seen), "a validation has the arithmetic of the training"
    assert speed.step > 0
    assert speed.validation_token > 0
