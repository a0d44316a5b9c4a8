"""Trainings of the paper's sizes on tensors without data: what is planned for them, and what their tensors take."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Generator, Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from calm_bench import blockwise
from calm_bench.config import Experiment
from calm_bench.head_config import DiffusionHead as DiffusionHeadConfig
from calm_bench.heads.diffusion import DiffusionHead
from calm_bench.lm import block_diffusion
from calm_bench.lm.folder import build_language_model
from calm_bench.memory import Memory, autoencoder_training_memory, training_memory
from calm_bench.presets import PRESETS
from calm_bench.training.autoencoder import training_loss, untrained, validation_scores
from calm_bench.training.task import Loss
from tests.gpu.fake_memory import PeakBytes

VOCAB_SIZE = 128_256
STEPS = 2048
"""Chunks of a sequence."""
HEADS = ["energy", "flow", "shortcut", "diffusion"]
FAMILIES = ["token", "patch", "multi_token", "block_diffusion"]
TRAININGS = ["autoencoder", *FAMILIES, *HEADS]


def experiment(preset: str, kind: str) -> Experiment:
    """The training ``kind`` at the sizes of ``preset``, on sequences of :data:`STEPS` chunks."""
    data: dict[str, Any] = copy.deepcopy(PRESETS[preset])
    model = data["model"]
    if kind in HEADS:
        model["head"] = {"kind": kind, "num_blocks": 4}
    elif kind in FAMILIES:
        model |= {"kind": kind, "chunk_size": 1 if kind == "token" else 4}
        del model["head"]
    model["training"]["sequence_length"] = STEPS * model["chunk_size"]
    return Experiment.model_validate(data)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Blocks of logits, and numbers of masked tokens, are those of a GPU while the block runs."""
    # A diffusion head reads from its table which steps it visits; it is known from here on.
    DiffusionHead(DiffusionHeadConfig(num_blocks=1), 8, 8)
    with (
        patch.object(blockwise, "MAX_LOGITS", blockwise.MAX_LOGITS_ON_GPU),
        patch.object(blockwise, "CACHED_LOGITS", blockwise.CACHED_LOGITS_ON_GPU),
        patch.object(block_diffusion, "has_fixed_shapes", lambda tokens: True),
    ):
        yield


def planned(described: Experiment, kind: str, sequences: int, recomputes: bool = False) -> Memory:
    """What a plan says that one worker takes."""
    if kind == "autoencoder":
        sizes = (described.autoencoder, described.model.chunk_size, VOCAB_SIZE)
        return autoencoder_training_memory(*sizes, "cuda", sequences)
    autoencoder = described.autoencoder if described.model.needs_autoencoder else None
    return training_memory(described.model, autoencoder, VOCAB_SIZE, "cuda", sequences, recomputes)


def built(described: Experiment, kind: str, recomputes: bool = False) -> tuple[Loss, Loss]:
    """The loss of a new model, and its scores of held-out text."""
    if kind == "autoencoder":
        autoencoder = untrained(described, VOCAB_SIZE)
        return training_loss(autoencoder), validation_scores(autoencoder)
    inner = untrained(described, VOCAB_SIZE) if described.model.needs_autoencoder else None
    model = build_language_model(described.model, VOCAB_SIZE, inner, seed=0)
    model.backbone.recomputes = recomputes
    return model.loss, model.loss


def tokens_of(described: Experiment, kind: str, sequences: int) -> Tensor:
    training = described.autoencoder.training if kind == "autoencoder" else described.model.training
    return torch.zeros((sequences, training.sequence_length), dtype=torch.long)


def held(described: Experiment, kind: str, sequences: int, recomputes: bool = False) -> int:
    """Bytes of weights, gradients and two micro-batches, the second of which finds the gradients of the first."""
    with FakeTensorMode(), PeakBytes() as counted, torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = tokens_of(described, kind, sequences)
        loss, _ = built(described, kind, recomputes)
        for _ in range(2):
            value, _ = loss(tokens, Generator())
            value.backward()
            del value
    return counted.peak


def held_in_validation(described: Experiment, kind: str, sequences: int) -> int:
    """Bytes of weights and of one micro-batch without gradients."""
    with FakeTensorMode(), PeakBytes() as counted, torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        tokens = tokens_of(described, kind, sequences)
        _, scores = built(described, kind)
        scores(tokens, Generator())
    return counted.peak
