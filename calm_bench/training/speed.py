"""How fast a machine trains: a few real optimizer steps on random tokens, timed.

What is measured is what :mod:`calm_bench.training.loop` does, on the model that a study would train, with as many
sequences at once as memory allows; only the text is made up, which no step's cost depends on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.autoencoder.probe import accuracy
from calm_bench.config import Experiment, Training
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.folder import build_language_model
from calm_bench.training.autoencoder import autoencoder_rows, training_loss, untrained, validation_scores
from calm_bench.training.language_model import language_model_rows
from calm_bench.training.loop import Loop
from calm_bench.training.task import TrainingTask
from calm_bench.training_options import DEFAULT_OPTIONS

MEASURED_CHUNKS = 2048
"""Chunks that are reconstructed to time an autoencoder's accuracy."""
LEAST_STEPS = 2


@dataclass(frozen=True)
class TrainingSpeed:
    """Seconds of one training's parts."""

    step: float
    """An optimizer step."""
    validation_token: float
    """A held-out token of a validation."""
    reconstruction_token: float = 0.0
    """A token that an autoencoder reconstructs to measure its accuracy."""


def autoencoder_speed(experiment: Experiment, vocab_size: int, device: str, seconds: float) -> TrainingSpeed:
    """Train ``experiment.autoencoder`` from scratch for about ``seconds``, and throw it away."""
    config, chunk_size = experiment.autoencoder, experiment.model.chunk_size
    model = untrained(experiment, vocab_size).to(device)
    rows = autoencoder_rows(config, chunk_size, vocab_size, device, DEFAULT_OPTIONS)
    tokens = _tokens(config.training, vocab_size, rows)
    task = TrainingTask(model, training_loss(model), validation_scores(model), tokens, 1.0)
    step, validation = _step_and_validation(task, config.training, device, seconds)
    model.eval()
    some = tokens[:, : tokens.shape[1] // model.span * model.span].reshape(-1, model.span)[:MEASURED_CHUNKS].to(device)
    reconstruction = timed(lambda: accuracy(model, some), device, seconds / 4)
    return TrainingSpeed(step, validation, reconstruction / (len(some) * chunk_size))


def language_model_speed(
    experiment: Experiment, vocab_size: int, device: str, seconds: float
) -> tuple[TrainingSpeed, ChunkLanguageModel]:
    """As :func:`autoencoder_speed`, of ``experiment.model`` on an untrained autoencoder; the model comes too."""
    training = experiment.model.training
    autoencoder: Autoencoder | None = None
    if experiment.model.needs_autoencoder:
        autoencoder = untrained(experiment, vocab_size).to(device)
    # Whichever token ends documents takes as long.
    model = build_language_model(experiment.model, vocab_size, autoencoder, experiment.seed, document_end=0).to(device)
    rows = language_model_rows(experiment, vocab_size, model, device, DEFAULT_OPTIONS)
    tokens = _tokens(training, vocab_size, rows)
    task = TrainingTask(model, model.loss, model.loss, tokens, 1.0)
    step, validation = _step_and_validation(task, training, device, seconds)
    model.eval()
    return TrainingSpeed(step, validation), model


class _SameBatch:
    """An endless source of one batch, on the CPU as a text's are."""

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens

    def take(self, rows: Tensor) -> Tensor:
        return self._tokens

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _step_and_validation(task: TrainingTask, training: Training, device: str, seconds: float) -> tuple[float, float]:
    """Seconds of an optimizer step and of a held-out token, medians: of as many sequences as are computed at once,
    which are the held-out text of ``task``."""
    # All pieces of a step are alike, so one is measured; the optimizer's own work is then counted once too often.
    single = {"num_steps": 10**9, "num_tokens": None, "num_flops": None, "gradient_accumulation": 1}
    config = training.model_copy(update={**single, "batch_size": len(task.held_out)})
    with TemporaryDirectory() as folder:
        loop = Loop(task, _SameBatch(task.held_out), config, Path(folder), 0, device, lambda: False)
        # The first step allocates the optimizer's state.
        loop.train_step()
        step = timed(loop.train_step, device, seconds, warm=False)
        validation = timed(loop.scores, device, seconds / 4)
    return step * training.batch_size / len(task.held_out), validation / task.held_out.numel()


def clock(device: str) -> Callable[[], float]:
    """What seconds are counted by: on a CPU the process's own, so that busy neighbours do not make a model look slow.

    A worker has one thread, so that on an idle machine its own time is the time that passes.
    """
    return time.perf_counter if device.startswith("cuda") else time.process_time


def timed(work: Callable[[], object], device: str, seconds: float, warm: bool = True) -> float:
    """Median seconds of ``work``, repeated for about ``seconds`` and twice at least."""
    if warm:
        work()
    # Work that was begun before must not be in the first time.
    wait_for(device)
    now = clock(device)
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < LEAST_STEPS or time.perf_counter() - begun < seconds:
        before = now()
        work()
        wait_for(device)
        times.append(now() - before)
    return median(times)


def wait_for(device: str) -> None:
    """Return when all that was asked of a GPU is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _tokens(training: Training, vocab_size: int, rows: int | None) -> Tensor:
    """Random ids on the CPU, of so many sequences; unset, of a micro-batch."""
    shape = (rows or training.batch_size // training.gradient_accumulation, training.sequence_length)
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(0))
