"""How fast a machine trains: a few real optimizer steps on random tokens, timed.

What is measured is what :mod:`calm_bench.training.loop` does, on the model that a study would train; only the text is
made up, which no step's cost depends on.
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
from torch import Tensor, nn

from calm_bench.autoencoder import Autoencoder
from calm_bench.autoencoder.loss import autoencoder_loss
from calm_bench.autoencoder.probe import accuracy
from calm_bench.config import Experiment, Training
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.folder import build_language_model
from calm_bench.training.autoencoder import training_loss, untrained
from calm_bench.training.loop import Loop
from calm_bench.training.task import Loss, TrainingTask

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
    tokens = _tokens(config.training, vocab_size, device)
    step = _step(_trainee(model, training_loss(model)), tokens, config.training, device, seconds)
    model.eval()
    chunks = tokens.unflatten(-1, (-1, chunk_size))
    noise = torch.randn((*chunks.shape[:-1], config.latent_size), device=device)
    some = tokens[:, : tokens.shape[1] // model.span * model.span].reshape(-1, model.span)[:MEASURED_CHUNKS]
    with torch.no_grad():
        validation = _timed(lambda: autoencoder_loss(model, chunks, None, noise, None), device, seconds / 4)
    reconstruction = _timed(lambda: accuracy(model, some), device, seconds / 4)
    # A validation reconstructs its text too.
    each = reconstruction / (len(some) * chunk_size)
    return TrainingSpeed(step, validation / chunks.numel() + each, each)


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
    tokens = _tokens(training, vocab_size, device)
    step = _step(_trainee(model, model.loss), tokens, training, device, seconds)
    model.eval()
    noise = torch.Generator(device)
    with torch.no_grad():
        validation = _timed(lambda: model.loss(tokens, noise), device, seconds / 4)
    return TrainingSpeed(step, validation / tokens.numel()), model


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


def _step(trainee: TrainingTask, tokens: Tensor, training: Training, device: str, seconds: float) -> float:
    """Seconds of an optimizer step, the median; of a step in micro-batches, from one of them."""
    parts = training.gradient_accumulation
    # All micro-batches are alike, so one is measured; the optimizer's own work is then counted once too often.
    single = {"num_steps": 10**9, "num_tokens": None, "num_flops": None, "gradient_accumulation": 1}
    config = training.model_copy(update={**single, "batch_size": len(tokens)})
    with TemporaryDirectory() as folder:
        loop = Loop(trainee, _SameBatch(tokens.cpu()), config, Path(folder), 0, device, lambda: False)
        # The first step allocates the optimizer's state.
        loop.train_step()
        return parts * _timed(loop.train_step, device, seconds, warm=False)


def clock(device: str) -> Callable[[], float]:
    """What seconds are counted by: on a CPU the process's own, so that busy neighbours do not make a model look slow.

    A worker has one thread, so that on an idle machine its own time is the time that passes.
    """
    return time.perf_counter if device.startswith("cuda") else time.process_time


def _timed(work: Callable[[], object], device: str, seconds: float, warm: bool = True) -> float:
    """Median seconds of ``work``, repeated for about ``seconds`` and twice at least."""
    if warm:
        work()
    # Work that was begun before must not be in the first time.
    _wait(device)
    now = clock(device)
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < LEAST_STEPS or time.perf_counter() - begun < seconds:
        before = now()
        work()
        _wait(device)
        times.append(now() - before)
    return median(times)


def _wait(device: str) -> None:
    """Until all that was asked of a GPU is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _tokens(training: Training, vocab_size: int, device: str) -> Tensor:
    """A micro-batch of random ids."""
    shape = (training.batch_size // training.gradient_accumulation, training.sequence_length)
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(0)).to(device)


def _trainee(model: nn.Module, loss: Loss) -> TrainingTask:
    """One that is never validated."""
    return TrainingTask(model, loss, loss, torch.empty(0, 1, dtype=torch.long), 1.0)
