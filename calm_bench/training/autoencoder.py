"""Train the autoencoder of one chunk size."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.autoencoder.loss import autoencoder_loss, held_out_scores
from calm_bench.autoencoder.probe import accuracy, probe
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import Experiment
from calm_bench.devices import available_memory
from calm_bench.flops import autoencoder_parameter_count, autoencoder_training_flops
from calm_bench.memory import autoencoder_training_memory
from calm_bench.row_noise import draw
from calm_bench.seeding import derive
from calm_bench.tokens import TokenStream, TrainingText, different_chunks, windows
from calm_bench.training.loop import Loop
from calm_bench.training.parallel import current_workers
from calm_bench.training.pretrained_parts import pretrained_autoencoder
from calm_bench.training.task import Loss, TrainingTask
from calm_bench.training_options import DEFAULT_OPTIONS, TrainingOptions
from calm_bench.worker_memory import divided_memory, fitting_rows, rows_at_once

TOKENIZER_FOLDER = "tokenizer"


def train_autoencoder(
    experiment: Experiment,
    tokens_folder: str | Path,
    folder: str | Path,
    device: str,
    stop: Callable[[], bool],
    options: TrainingOptions = DEFAULT_OPTIONS,
) -> dict[str, Any]:
    """Train ``experiment.autoencoder`` at K = ``experiment.model.chunk_size``, or go on where ``folder`` stopped.

    Writes ``model/``, ``metrics.jsonl`` and ``checkpoints/`` into ``folder``. Several workers
    (:mod:`calm_bench.training.workers`) all call it; the first of them writes, and measures in the end.

    Args:
        options: what belongs to the machine.

    Returns:
        Cost, losses, ``accuracy``: the share of ``accuracy_tokens`` held-out test tokens that come back from a latent
        drawn from the posterior, and ``probes``: :class:`calm_bench.autoencoder.probe.Probes` on a sample of them.
        Of workers other than the first, nothing.

    Raises:
        TrainingError: the loss broke.
        Interrupted: ``stop`` said so.
    """
    tokens_folder, folder = Path(tokens_folder), Path(folder)
    config, chunk_size = experiment.autoencoder, experiment.model.chunk_size
    text = TrainingText(tokens_folder, config.training)
    model = untrained(experiment, text.vocab_size).to(device)
    training = config.training
    held_out = windows(
        TokenStream.open(tokens_folder, "validation"),
        training.sequence_length,
        training.validation_batches * training.batch_size,
    )

    flops = autoencoder_training_flops(config, chunk_size, text.vocab_size)
    loss, scores = training_loss(model), validation_scores(model)
    trainee = TrainingTask(model, loss, scores, held_out.tokens, flops.total, section="autoencoder")
    seed = derive(experiment.seed, "autoencoder")
    micro_batch = autoencoder_rows(config, chunk_size, text.vocab_size, device, options)
    with closing(text.batches(derive(experiment.seed, "data", "autoencoder"))) as batches:
        loop = Loop(trainee, batches, training, folder, seed, device, stop, options.keep_checkpoints, micro_batch)
        summary = loop.run()

    if not current_workers().is_first:
        return {}
    return {
        **dataclasses.asdict(summary),
        "flops_by_part": {name: value * summary.tokens for name, value in flops.parts.items()},
        **_finished(model, experiment, tokens_folder, folder),
    }


def adopt_autoencoder(
    experiment: Experiment, tokens_folder: str | Path, source: str | Path, folder: str | Path, device: str
) -> dict[str, Any]:
    """Take the trained autoencoder of the folder ``source`` for the one of ``experiment``, without a training.

    Writes ``model/`` into ``folder``, and measures it as :func:`train_autoencoder` does, with the same results; its
    training FLOPs are those that ``experiment.autoencoder.pretrained`` states.

    Raises:
        UnfitPart: it is of another K or vocabulary.
        WeightsError: the folder cannot be read.
    """
    tokens_folder, folder = Path(tokens_folder), Path(folder)
    if not current_workers().is_first:
        return {}
    vocab_size = TokenStream.open(tokens_folder, "test").vocab_size
    model = pretrained_autoencoder(source, experiment.model.chunk_size, vocab_size).to(device)
    flops = experiment.autoencoder.pretrained.training_flops
    return {
        "steps": 0,
        "tokens": 0,
        "training_flops": flops,
        "flops_by_part": {"pretrained": flops},
        "wall_time_s": 0.0,
        **_finished(model, experiment, tokens_folder, folder),
    }


def _finished(model: Autoencoder, experiment: Experiment, tokens_folder: Path, folder: Path) -> dict[str, Any]:
    """Write ``model`` with its tokenizer; what is measured of it on test text."""
    model.eval()
    device = next(model.parameters()).device
    length = experiment.autoencoder.training.sequence_length
    test = different_chunks(TokenStream.open(tokens_folder, "test"), length, model.span)
    share = accuracy(model, test, torch.Generator(device).manual_seed(derive(experiment.seed, "accuracy")))
    model.save(folder / "model")
    shutil.copytree(tokens_folder / TOKENIZER_FOLDER, folder / "model" / TOKENIZER_FOLDER, dirs_exist_ok=True)
    return {
        "chunk_size": model.chunk_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "accuracy": share.value,
        "accuracy_se": share.standard_error,
        "accuracy_tokens": share.num_tokens,
        "probes": probe(model, test, derive(experiment.seed, "probes")).to_dict(),
    }


def training_loss(model: Autoencoder) -> Loss:
    """The loss of ``model`` on token batches [B, L], with dropout and the posterior's draw from the given noise."""

    def loss(tokens: Tensor, noise: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chunks = _chunks(model, tokens)
        token_uniform = draw(torch.rand, chunks.shape, 0, noise, chunks.device)
        latent = (*chunks.shape[:-1], model.latent_size)
        latent_normal = draw(torch.randn, latent, 0, noise, chunks.device)
        latent_uniform = draw(torch.rand, latent, 0, noise, chunks.device)
        return autoencoder_loss(model, chunks, token_uniform, latent_normal, latent_uniform)

    return loss


def validation_scores(model: Autoencoder) -> Loss:
    """Loss and ``accuracy`` of ``model`` on token batches [B, L], without dropout, with the given posterior's draws."""

    def scores(tokens: Tensor, noise: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chunks = _chunks(model, tokens)
        latent = (*chunks.shape[:-1], model.latent_size)
        return held_out_scores(model, chunks, draw(torch.randn, latent, 0, noise, chunks.device))

    return scores


def _chunks(model: Autoencoder, tokens: Tensor) -> Tensor:
    """Ids [B, L] as [B L / K, K], or as [B, L / K, K] for an autoencoder that reads the chunk before."""
    return tokens.unflatten(-1, (-1, model.chunk_size)) if model.context_size else tokens.reshape(-1, model.chunk_size)


def untrained(experiment: Experiment, vocab_size: int) -> Autoencoder:
    """The autoencoder of ``experiment`` before its first step; its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(experiment.seed, "init", "autoencoder"))
        return Autoencoder(experiment.autoencoder, experiment.model.chunk_size, vocab_size)


def autoencoder_rows(
    config: AutoencoderConfig, chunk_size: int, vocab_size: int, device: str, options: TrainingOptions
) -> int:
    """Sequences that a worker computes at once, as ``options`` and its memory have it. An autoencoder is whole on every
    worker."""
    workers = current_workers()
    kind: Literal["cpu", "cuda"] = "cuda" if device.startswith("cuda") else "cpu"
    trained = autoencoder_parameter_count(config, chunk_size, vocab_size).total

    def bytes_of(rows: int) -> float:
        memory = autoencoder_training_memory(config, chunk_size, vocab_size, kind, rows)
        return divided_memory(memory, workers.size, "ddp", trained, 0.0, kind).total

    rows = rows_at_once(config.training, workers.size)
    # What is free differs from one GPU to the next.
    return workers.told(fitting_rows(options.micro_batch, rows, bytes_of, available_memory(device)))
