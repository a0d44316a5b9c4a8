"""A validation of a model of the paper's size needs less memory than the step that it follows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from calm_bench import blockwise
from calm_bench.config import Experiment
from calm_bench.lm.folder import build_language_model
from calm_bench.presets import PRESETS
from calm_bench.training.autoencoder import training_loss, untrained, validation_scores
from tests.gpu.fake_memory import PeakBytes

pytestmark = pytest.mark.slow

VOCAB_SIZE = 128_256
HEADS = ["energy", "flow", "shortcut", "diffusion"]


@pytest.fixture(autouse=True)
def blocks_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_LOGITS", "CACHED_LOGITS"):
        monkeypatch.setattr(blockwise, name, blockwise.MAX_LOGITS_ON_GPU)


def experiment(kind: str) -> Experiment:
    data: dict[str, Any] = copy.deepcopy(PRESETS["paper-m"])
    if kind == "token":
        data["model"] |= {"kind": "token", "chunk_size": 1}
        del data["model"]["head"]
    elif kind in HEADS:
        data["model"]["head"] = {"kind": kind, "num_blocks": 4}
    return Experiment.model_validate(data)


def peak(kind: str, trains: bool) -> int:
    """Bytes of one micro-batch's loss, with its backward pass or without gradients."""
    what = experiment(kind)
    training = what.autoencoder.training if kind == "autoencoder" else what.model.training
    size = (training.batch_size // training.gradient_accumulation, training.sequence_length)
    with FakeTensorMode(), PeakBytes() as counted, torch.autocast("cpu", dtype=torch.bfloat16):
        tokens, noise = torch.zeros(size, dtype=torch.long), Generator()
        loss: Callable[[Tensor, Generator], tuple[Tensor, dict[str, Tensor]]]
        if kind == "autoencoder":
            model = untrained(what, VOCAB_SIZE)
            loss = training_loss(model) if trains else validation_scores(model)
        else:
            autoencoder = None if kind == "token" else untrained(what, VOCAB_SIZE)
            loss = build_language_model(what.model, VOCAB_SIZE, autoencoder, seed=0).loss
        with torch.set_grad_enabled(trains):
            value, _ = loss(tokens, noise)
            if trains:
                value.backward()
    return counted.peak


# A diffusion head reads from its table of noise which steps it visits, and fake tensors hold no numbers.
MEASURABLE = [head for head in HEADS if head != "diffusion"]


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("kind", ["autoencoder", "token", *MEASURABLE])
def test_a_micro_batch_without_gradients_takes_less_than_one_with_them(kind: str) -> None:
    step, validation = peak(kind, trains=True), peak(kind, trains=False)
    assert 1e9 < validation < 0.8 * step
