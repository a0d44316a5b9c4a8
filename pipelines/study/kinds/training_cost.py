"""What a training takes, by one process or by several (:mod:`calm_bench.training.workers`): time, memory, disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from calm_bench.config import Training
from calm_bench.memory import FLOAT, Memory
from calm_bench.worker_memory import fitting_rows, rows_at_once
from pipelines.study.cost import SMALL_FILES_BYTES, CostContext, Workers
from pipelines.study.price import TrainingPrice
from pipelines.study.workload import Speed

DISK_BYTES_PER_SECOND = 3e8
"""At which a checkpoint is written, hashed and flushed."""
METRICS_LINE_BYTES = 400
GROUP_START_S = 20.0
"""Until workers have found each other, besides the imports that a stage of one process has too. Measured on two cores
with two workers."""


def worker_seconds(price: TrainingPrice, training: Training, speed: Speed, workers: Workers) -> float:
    """Seconds of a whole training by ``workers``, among whom its steps and validations are divided evenly.

    What is sent between workers is not counted.
    """
    if workers.count == 1:
        return training_seconds(price, training, speed)
    shared = replace(
        speed, step=speed.step / workers.speedup, validation_token=speed.validation_token / workers.speedup
    )
    return GROUP_START_S + training_seconds(price, training, shared)


def training_seconds(price: TrainingPrice, training: Training, speed: Speed) -> float:
    """Seconds of a whole training by one process: its steps, its validations and its checkpoints."""
    validations = price.steps // training.validate_every + (price.steps % training.validate_every > 0)
    held_out = training.validation_batches * training.batch_size * training.sequence_length
    checkpoints = ceil(price.steps / training.checkpoint_every)
    written = checkpoints * checkpoint_bytes(price) / DISK_BYTES_PER_SECOND
    return price.steps * speed.step + validations * held_out * speed.validation_token + written


def steps_within(seconds: float, training: Training, speed: Speed) -> int:
    """Optimizer steps that end, with their validations, within ``seconds``; the inverse of :func:`training_seconds`
    but for checkpoints."""
    held_out = training.validation_batches * training.batch_size * training.sequence_length
    return max(1, int(seconds / (speed.step + held_out * speed.validation_token / training.validate_every)))


def checkpoint_bytes(price: TrainingPrice) -> float:
    """Bytes of a checkpoint: weights and Adam's two averages, in fp32."""
    return 3 * FLOAT * price.parameters.total


def training_disk(
    price: TrainingPrice, training: Training, saved: float, models: int, keep: int
) -> tuple[float, float]:
    """Bytes that a training leaves, and those of its checkpoints while it runs.

    Args:
        saved: parameters of a saved model, frozen ones too.
        models: how many models are saved.
        keep: newest checkpoints that are kept.
    """
    lines = price.steps // training.log_every + price.steps // training.validate_every + 2
    kept = FLOAT * saved * models + METRICS_LINE_BYTES * lines + SMALL_FILES_BYTES
    # Beside the newest, the best one and the one that is being written.
    return kept, (keep + 2) * checkpoint_bytes(price)


def sequences_at_once(training: Training, memory_of: Callable[[int], Memory], context: CostContext) -> int:
    """Sequences that a worker computes at once, as ``execution.micro_batch`` says.

    Args:
        memory_of: from sequences at once to what a worker takes.
    """
    rows = rows_at_once(training, context.workers.count)
    return fitting_rows(context.training.micro_batch, rows, lambda n: memory_of(n).total, context.memory_bytes)


def micro_batch_advice(training: Mapping[str, Any], section: str, parameters: int | None) -> str:
    """The size of a training that did not fit into memory, and what makes it fit.

    Args:
        training: its configuration.
        section: where that stands in an experiment.
        parameters: of what it trains; None where the vocabulary is not known without the tokens at hand.
    """
    parts, length = training["gradient_accumulation"], training["sequence_length"]
    sequences = training["batch_size"] // parts
    size = f"{sequences} sequences of {length:,} tokens at once"
    if parameters is not None:
        size = f"{parameters:,} parameters, {size}"
    advice = f"lower the model's size or {section}.training.sequence_length"
    if sequences > 1:
        fewer = (sequences + 1) // 2
        advice = f"execution.micro_batch={fewer} has {fewer} sequences at once for the same steps"
    return f"it has {size}: {advice}, or let fewer stages run at once (execution.max_parallel)"
