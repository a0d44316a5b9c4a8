"""What a plan says a training takes, against what its tensors take: the paper's sizes, without data."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Generator
from torch._subclasses.fake_tensor import FakeTensorMode

from calm_bench import blockwise
from calm_bench.config import Experiment
from calm_bench.lm.folder import build_language_model
from calm_bench.memory import Memory, autoencoder_training_memory, training_memory
from calm_bench.presets import PRESETS
from calm_bench.training.autoencoder import training_loss, untrained
from calm_bench.training.task import Loss
from tests.gpu.fake_memory import PeakBytes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Mismatch dtype")]

VOCAB_SIZE = 128_256
WITHIN = 0.10
# Fake tensors hold no numbers, which a diffusion head's table and a mask of tokens are asked for.
HEADS = ["energy", "flow", "shortcut"]
FAMILIES = ["token", "patch", "multi_token"]
SIZES = [("paper-s", 16), ("paper-m", 4), ("paper-l", 2)]
"""Presets, with sequences at once."""


@pytest.fixture(autouse=True)
def blocks_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_LOGITS", "CACHED_LOGITS"):
        monkeypatch.setattr(blockwise, name, blockwise.MAX_LOGITS_ON_GPU)


def experiment(preset: str, kind: str) -> Experiment:
    data: dict[str, Any] = copy.deepcopy(PRESETS[preset])
    model = data["model"]
    if kind in HEADS:
        model["head"] = {"kind": kind, "num_blocks": 4}
    elif kind in FAMILIES:
        model |= {"kind": kind, "chunk_size": 1 if kind == "token" else 4}
        del model["head"]
    model["training"]["sequence_length"] = 2048 * model["chunk_size"]
    return Experiment.model_validate(data)


def planned(described: Experiment, kind: str, sequences: int, recomputes: bool = False) -> Memory:
    if kind == "autoencoder":
        sizes = (described.autoencoder, described.model.chunk_size, VOCAB_SIZE)
        return autoencoder_training_memory(*sizes, "cuda", sequences)
    autoencoder = described.autoencoder if described.model.needs_autoencoder else None
    return training_memory(described.model, autoencoder, VOCAB_SIZE, "cuda", sequences, recomputes)


def held(described: Experiment, kind: str, sequences: int, recomputes: bool = False) -> int:
    """Bytes of weights, gradients and two micro-batches, the second of which finds the gradients of the first."""
    training = described.autoencoder.training if kind == "autoencoder" else described.model.training
    with FakeTensorMode(), PeakBytes() as counted, torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = torch.zeros((sequences, training.sequence_length), dtype=torch.long)
        loss: Loss
        if kind == "autoencoder":
            loss = training_loss(untrained(described, VOCAB_SIZE))
        else:
            autoencoder = untrained(described, VOCAB_SIZE) if described.model.needs_autoencoder else None
            model = build_language_model(described.model, VOCAB_SIZE, autoencoder, seed=0)
            model.backbone.recomputes = recomputes
            loss = model.loss
        for _ in range(2):
            value, _ = loss(tokens, Generator())
            value.backward()
            del value
    return counted.peak


@pytest.mark.parametrize(("preset", "sequences"), SIZES)
@pytest.mark.parametrize("kind", ["autoencoder", *FAMILIES, *HEADS])
def test_a_plan_is_near_what_the_tensors_take(kind: str, preset: str, sequences: int) -> None:
    described = experiment(preset, kind)
    parts = planned(described, kind, sequences).parts.parts
    found = held(described, kind, sequences) + parts["optimizer"] + parts["process"]
    assert sum(parts.values()) == pytest.approx(found, rel=WITHIN)


@pytest.mark.parametrize("kind", ["token", "energy", "flow"])
def test_a_plan_is_near_what_layers_take_that_are_computed_again(kind: str) -> None:
    described, sequences = experiment("paper-m", kind), 8
    plain = sum(planned(described, kind, sequences).parts.parts.values())
    parts = planned(described, kind, sequences, recomputes=True).parts.parts
    found = held(described, kind, sequences, recomputes=True) + parts["optimizer"] + parts["process"]
    assert sum(parts.values()) == pytest.approx(found, rel=WITHIN)
    assert sum(parts.values()) < 0.75 * plain
