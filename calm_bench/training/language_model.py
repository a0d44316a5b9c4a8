"""Train a language model of any family: CALM on a frozen autoencoder, the token baseline, others."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from calm_bench.autoencoder import load_autoencoder
from calm_bench.config import Experiment
from calm_bench.devices import available_memory
from calm_bench.flops import DECODE_MODE, inference_flops, layer_parameters, parameter_count, training_flops
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.folder import build_language_model, runs_code_from_elsewhere
from calm_bench.memory import frozen_parameters, training_memory
from calm_bench.seeding import derive
from calm_bench.tokens import TokenStream, TrainingText, windows
from calm_bench.training.autoencoder import TOKENIZER_FOLDER
from calm_bench.training.loop import Loop
from calm_bench.training.parallel import current_workers, whole_state
from calm_bench.training.pretrained_parts import start_from
from calm_bench.training.snapshots import Snapshots
from calm_bench.training.task import TrainingTask
from calm_bench.training_options import DEFAULT_OPTIONS, TrainingOptions
from calm_bench.weights import save_tensors
from calm_bench.worker_memory import divided_memory, fitting_rows, rows_at_once
from calm_bench.worker_shares import check_micro_batch


def train_language_model(
    experiment: Experiment,
    tokens_folder: str | Path,
    autoencoder_folder: str | Path | None,
    folder: str | Path,
    device: str,
    stop: Callable[[], bool],
    options: TrainingOptions = DEFAULT_OPTIONS,
    pretrained: str | Path | None = None,
) -> dict[str, Any]:
    """Train ``experiment.model``, or go on where ``folder`` stopped.

    Several workers (:mod:`calm_bench.training.workers`) all call it; the first of them writes.

    Args:
        autoencoder_folder: finished autoencoder stage; ``None`` for families that need none.
        options: what belongs to the machine.
        pretrained: folder of a language model whose weights are the first ones.

    Returns:
        Cost, losses, ``parameters`` (trained ones), ``inference_flops_per_token`` in ``decode_mode``, and
        ``plateau_steps``, the steps under the alarm of :mod:`calm_bench.training.plateau`.

    Raises:
        TrainingError: the loss broke.
        Interrupted: ``stop`` said so.
        ValueError: a model that needs an autoencoder, without one.
        UnfitPart: ``pretrained`` is of another architecture, or of another autoencoder.
        CannotShare: fewer sequences at once are asked for than a head of a user's can be computed on.
    """
    tokens_folder, folder = Path(tokens_folder), Path(folder)
    config, training = experiment.model, experiment.model.training
    text = TrainingText(tokens_folder, training)
    autoencoder = None if autoencoder_folder is None else load_autoencoder(Path(autoencoder_folder) / "model")
    model = build_language_model(config, text.vocab_size, autoencoder, experiment.seed, text.eos_id)
    if pretrained is not None:
        start_from(model, pretrained)
    model.to(device)
    model.backbone.recomputes = options.activation_checkpointing
    held_out = windows(
        TokenStream.open(tokens_folder, "validation"),
        training.sequence_length,
        training.validation_batches * training.batch_size,
    ).tokens

    context_steps = training.sequence_length // config.chunk_size
    flops = training_flops(config, experiment.autoencoder, text.vocab_size, context_steps)
    workers = current_workers()

    def save(path: Path) -> None:
        state = whole_state(model)
        if workers.is_first:
            save_tensors(state, path, model.description())

    count = experiment.trajectory.snapshots if experiment.trajectory else 0
    trainee = TrainingTask(
        model,
        model.loss,
        model.loss,
        held_out,
        flops.total,
        _parts(model),
        after_step=Snapshots(folder, count, save, workers.is_first).note,
        draws_by_rows=model.draws_by_rows,
        skips_parameters=runs_code_from_elsewhere(config),
        units=list(model.backbone.layers),
    )
    seed = derive(experiment.seed, "language_model")
    micro_batch = language_model_rows(experiment, text.vocab_size, model, device, options)
    with closing(text.batches(derive(experiment.seed, "data", "language_model"))) as batches:
        loop = Loop(trainee, batches, training, folder, seed, device, stop, options.keep_checkpoints, micro_batch)
        summary = loop.run()

    save(folder / "model")
    if workers.is_first:
        shutil.copytree(tokens_folder / TOKENIZER_FOLDER, folder / "model" / TOKENIZER_FOLDER, dirs_exist_ok=True)
    inference = inference_flops(config, experiment.autoencoder, text.vocab_size, context_steps)
    return {
        **dataclasses.asdict(summary),
        "chunk_size": config.chunk_size,
        "parameters": sum(p.numel() for _, p in model.trainable_parameters()),
        "autoencoder_parameters": 0 if autoencoder is None else sum(p.numel() for p in autoencoder.parameters()),
        "flops_by_part": {name: value * summary.tokens for name, value in flops.parts.items()},
        "inference_flops_per_token": inference.total,
        "inference_flops_by_part": dict(inference.parts),
        "decode_mode": DECODE_MODE,
    }


def language_model_rows(
    experiment: Experiment, vocab_size: int, model: ChunkLanguageModel, device: str, options: TrainingOptions
) -> int | None:
    """Sequences that a worker computes at once, as ``options`` and its memory have it; None for all that it has."""
    config, workers = experiment.model, current_workers()
    rows = rows_at_once(config.training, workers.size)
    check_micro_batch(config.training, workers.size, options, model.draws_by_rows)
    if not model.draws_by_rows:
        return None
    kind: Literal["cpu", "cuda"] = "cuda" if device.startswith("cuda") else "cpu"
    autoencoder = experiment.autoencoder if config.needs_autoencoder else None
    trained = parameter_count(config, autoencoder, vocab_size).total
    frozen = frozen_parameters(config, autoencoder, vocab_size)

    def bytes_of(rows: int) -> float:
        memory = training_memory(config, autoencoder, vocab_size, kind, rows, options.activation_checkpointing)
        sizes = layer_parameters(config), config.num_layers
        return divided_memory(memory, workers.size, workers.strategy, trained, frozen, kind, *sizes).total

    # What is free differs from one GPU to the next.
    return workers.told(fitting_rows(options.micro_batch, rows, bytes_of, available_memory(device)))


def _parts(model: ChunkLanguageModel) -> dict[str, list[str]]:
    """All that is trained in two: what turns a hidden state into a prediction, and what makes the hidden state."""
    parts: dict[str, list[str]] = {"head": [], "backbone": []}
    for name, _ in model.trainable_parameters():
        parts["head" if name.startswith(("head.", "lm_head.")) else "backbone"].append(name)
    return parts
