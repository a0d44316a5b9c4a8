"""What one stage takes: seconds alone on a worker, memory, and disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log

from calm_bench.config import Experiment, Training
from calm_bench.memory import Memory, autoencoder_training_memory, evaluation_memory, sampling_memory, training_memory
from pipelines.planning.calibration import Calibration, Measured
from pipelines.planning.crews import CREW_START_S, shared_speed, worker_memory
from pipelines.planning.machines import CORE_FLOPS_PER_SECOND, Machine
from pipelines.planning.text_sizes import TextSizes, corpus_seconds, tokens_seconds
from pipelines.study.price import Price, TrainingPrice
from pipelines.study.workload import Speed, Workload

STAGE_S = 0.15
"""Of every stage besides its work: handing it to a worker, hashing and flushing what it wrote."""
DISK_BYTES_PER_SECOND = 3e8
"""At which a checkpoint is written, hashed and flushed."""
PROBED_TOKENS = 16_384
PROBES = 20
"""As in :mod:`calm_bench.autoencoder.probe`: tokens of the probes, and how often they are reconstructed."""
METRICS_LINE_BYTES = 400
SMALL_FILES_BYTES = 8_000
"""Of a stage's configuration, result, provenance and hashes, and of a small tokenizer."""
FLOAT = 4


@dataclass(frozen=True)
class StageCost:
    """An estimate for one stage; None where the configuration does not tell."""

    seconds: float | None
    """On a worker, while as many stages run as run at once."""
    memory: Memory | None = None
    disk_bytes: float | None = None
    """What stays."""
    scratch_bytes: float = 0.0
    """What is there besides while it runs: checkpoints."""
    measured: bool = True
    """Whether the seconds rest on a measurement of this very model on the machine."""
    uses_torch: bool = True


@dataclass(frozen=True)
class Speeds:
    """Speeds of models on one machine: measured, scaled by FLOPs from the nearest that is measured, or assumed."""

    machine: Machine
    calibration: Calibration

    def is_measured(self, workload: Workload) -> bool:
        return self.calibration.has(workload)

    def of(self, workload: Workload) -> Speed:
        """The speed of ``workload``."""
        if self.is_measured(workload):
            return self.calibration.models[workload.identity].speed
        is_token = workload.experiment.model.kind == "token"
        alike = [model for model in self.calibration.models.values() if model.kind == workload.kind]
        assumed = workload.speed_at(self.machine.flops_per_second, self.machine.scoring_flops_per_second)
        if not alike:
            return assumed

        def distance(model: Measured) -> float:
            return abs(log(model.work.step / workload.work.step)) + 3.0 * (model.is_token != is_token)

        return min(alike, key=distance).scaled_to(workload, assumed)


def assumed_speed(workload: Workload) -> Speed:
    """The speed of ``workload`` on one CPU core where nothing has been measured."""
    return workload.speed_at(CORE_FLOPS_PER_SECOND, CORE_FLOPS_PER_SECOND)


def stage_cost(
    kind: str,
    experiment: Experiment,
    price: Price,
    sizes: TextSizes,
    machine: Machine,
    speeds: Speeds,
    keep_checkpoints: int = 2,
) -> StageCost:
    """The cost of a stage of ``experiment``. A kind that is not known here has none that could be told."""
    device, model, vocab_size = machine.device, experiment.model, price.vocab_size
    autoencoder = experiment.autoencoder if model.kind == "calm" else None
    if kind == "corpus":
        written = None if sizes.num_bytes is None else sizes.num_bytes + SMALL_FILES_BYTES
        return StageCost(_plus(corpus_seconds(experiment.corpus, sizes)), disk_bytes=written, uses_torch=False)
    if kind == "tokens":
        width = 2 if vocab_size <= 2**16 else 4
        written = None if sizes.num_tokens is None else sizes.num_tokens * width + SMALL_FILES_BYTES
        return StageCost(_plus(tokens_seconds(experiment.tokens, sizes)), disk_bytes=written, uses_torch=False)
    if kind == "autoencoder" and price.autoencoder is not None:
        workload = Workload("autoencoder", experiment, vocab_size)
        speed = speeds.of(workload)
        seconds = _training_seconds(price.autoencoder, workload.training, speed, machine)
        tested = sizes.tokens_of("test") or 0.0
        seconds += speed.reconstruction_token * (tested + PROBES * min(PROBED_TOKENS, tested))
        memory = autoencoder_training_memory(experiment.autoencoder, model.chunk_size, vocab_size, device)
        if machine.workers > 1:
            # Autoencoders stay whole.
            whole = replace(machine, strategy="ddp")
            memory = worker_memory(memory, workload.training, price.autoencoder.parameters.total, 0.0, whole)
        return StageCost(
            STAGE_S + seconds,
            memory,
            *_disk(price.autoencoder, workload.training, price.autoencoder.parameters.total, 1, keep_checkpoints),
            measured=speeds.is_measured(workload),
        )
    workload = Workload("language_model", experiment, vocab_size)
    speed, measured = speeds.of(workload), speeds.is_measured(workload)
    if kind == "language_model":
        frozen = 0.0 if price.autoencoder is None else price.autoencoder.parameters.total
        snapshots = 0 if experiment.trajectory is None else experiment.trajectory.snapshots
        memory = training_memory(model, autoencoder, vocab_size, device)
        if machine.workers > 1:
            memory = worker_memory(memory, workload.training, price.model.parameters.total, frozen, machine)
        return StageCost(
            STAGE_S + _training_seconds(price.model, workload.training, speed, machine),
            memory,
            *_disk(
                price.model, workload.training, price.model.parameters.total + frozen, 1 + snapshots, keep_checkpoints
            ),
            measured=measured,
        )
    windows = scored_windows(experiment, sizes)
    if kind == "evaluation":
        memory = evaluation_memory(model, autoencoder, vocab_size, experiment.evaluation, device)
        seconds = STAGE_S + windows * speed.window
        return StageCost(seconds, memory, SMALL_FILES_BYTES + 60.0 * windows, measured=measured)
    if kind == "samples":
        memory = sampling_memory(model, autoencoder, vocab_size, experiment.samples, device)
        return StageCost(STAGE_S + speed.texts, memory, 3.0 * SMALL_FILES_BYTES, measured=measured)
    if kind == "trajectory" and experiment.trajectory is not None:
        memory = evaluation_memory(model, autoencoder, vocab_size, experiment.evaluation, device)
        entropy_windows = min(windows, experiment.trajectory.max_windows or windows)
        each = windows * speed.window + entropy_windows * speed.entropy_window
        seconds = STAGE_S + experiment.trajectory.snapshots * each
        return StageCost(seconds, memory, 4.0 * SMALL_FILES_BYTES, measured=measured)
    # Tasks of lm-eval: how many documents they have and how long these are is known to nobody before.
    return StageCost(None, None, None)


def _training_seconds(price: TrainingPrice, training: Training, speed: Speed, machine: Machine) -> float:
    if machine.workers == 1:
        return training_seconds(price, training, speed)
    return CREW_START_S + training_seconds(price, training, shared_speed(speed, machine))


def training_seconds(price: TrainingPrice, training: Training, speed: Speed) -> float:
    """Seconds of a whole training: its steps, its validations and its checkpoints."""
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
    """Weights and Adam's two averages, in fp32."""
    return 3 * FLOAT * price.parameters.total


def scored_windows(experiment: Experiment, sizes: TextSizes) -> int:
    """Windows that an evaluation scores; all of the limit where the size of the text is not known."""
    evaluation = experiment.evaluation
    tokens = sizes.tokens_of(evaluation.split)
    there = None if tokens is None else int(tokens / evaluation.context_length)
    given = [count for count in (there, evaluation.max_windows) if count is not None]
    return min(given, default=0)


def _disk(price: TrainingPrice, training: Training, saved: float, models: int, keep: int) -> tuple[float, float]:
    lines = price.steps // training.log_every + price.steps // training.validate_every + 2
    kept = FLOAT * saved * models + METRICS_LINE_BYTES * lines + SMALL_FILES_BYTES
    # Beside the newest, the best one and the one that is being written.
    return kept, (keep + 2) * checkpoint_bytes(price)


def _plus(seconds: float | None) -> float | None:
    return None if seconds is None else STAGE_S + seconds
