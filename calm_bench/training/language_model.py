"""Train a language model: CALM on a frozen autoencoder, or the token baseline."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Generator, nn

from calm_bench.autoencoder import load_autoencoder
from calm_bench.config import Experiment
from calm_bench.flops import DECODE_MODE, inference_flops, training_flops
from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.folder import build_language_model
from calm_bench.seeding import derive
from calm_bench.tokens import Batches, TokenStream, windows
from calm_bench.training.autoencoder import TOKENIZER_FOLDER
from calm_bench.training.loop import Loop, Trainee
from calm_bench.training.snapshots import Snapshots


def train_language_model(
    experiment: Experiment,
    tokens_folder: Path,
    autoencoder_folder: Path | None,
    folder: Path,
    device: str,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Train ``experiment.model``, or go on where ``folder`` stopped.

    Args:
        autoencoder_folder: finished autoencoder stage; ``None`` for the token model.

    Returns:
        Cost, losses, ``parameters`` (trained ones), ``inference_flops_per_token`` in ``decode_mode``, and
        ``plateau_steps``, the steps under the alarm of :mod:`calm_bench.training.plateau`.

    Raises:
        TrainingError: the loss broke.
        Interrupted: ``stop`` said so.
        ValueError: a chunk model without an autoencoder.
    """
    config, training = experiment.model, experiment.model.training
    stream = TokenStream.open(tokens_folder, "train")
    autoencoder = None if autoencoder_folder is None else load_autoencoder(autoencoder_folder / "model")
    model = build_language_model(config, stream.vocab_size, autoencoder, experiment.seed).to(device)
    held_out = windows(
        TokenStream.open(tokens_folder, "validation"),
        training.sequence_length,
        training.validation_batches * training.batch_size,
    ).tokens

    def validate(noise: Generator) -> dict[str, float]:
        sums: dict[str, float] = {}
        for batch in held_out.split(training.batch_size):
            loss, terms = model.loss(batch.to(device), noise)
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
        return {name: total / len(held_out) for name, total in sums.items()}

    context_steps = training.sequence_length // config.chunk_size
    flops = training_flops(config, experiment.autoencoder, stream.vocab_size, context_steps)
    snapshots = Snapshots(folder, experiment.trajectory.snapshots if experiment.trajectory else 0, model.save)
    trainee = Trainee(model, model.loss, validate, flops.total, _parts(model), snapshots.note)
    batches = Batches(
        stream, training.batch_size, training.sequence_length, derive(experiment.seed, "data", "language_model")
    )
    summary = Loop(trainee, batches, training, folder, derive(experiment.seed, "language_model"), device, stop).run()

    model.eval().save(folder / "model")
    shutil.copytree(tokens_folder / TOKENIZER_FOLDER, folder / "model" / TOKENIZER_FOLDER, dirs_exist_ok=True)
    inference = inference_flops(config, experiment.autoencoder, stream.vocab_size, context_steps)
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


def _parts(model: ChunkLanguageModel) -> dict[str, list[nn.Parameter]]:
    """All that is trained in two: what turns a hidden state into a prediction, and what makes the hidden state."""
    parts: dict[str, list[nn.Parameter]] = {"head": [], "backbone": []}
    for name, parameter in model.trainable_parameters():
        parts["head" if name.startswith(("head.", "lm_head.")) else "backbone"].append(parameter)
    return parts
