"""Steps, samples and scores ask a GPU for no number that they can do without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.config import Training
from calm_bench.lm import Calm
from calm_bench.sampling.continuations import sample_continuations
from calm_bench.training.autoencoder import training_loss
from calm_bench.training.loop import Loop
from calm_bench.training.task import Loss, TrainingTask
from evals.estimators import Estimator, score_windows
from evals.samplers import ModelSampler
from tests.gpu.small_models import CHUNK_SIZE, HEADS, KINDS, LENGTH, autoencoder, language_model, tokens
from tests.gpu.waits import Waits


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.repeat_interleave(torch.tensor([1, 2, 1])),
        # An index that is a number on the device becomes one on the CPU.
        lambda x: x[torch.tensor(1)],
        lambda x: bool(x.isfinite().all()),
    ],
)
def test_planted_waits_are_seen(mistake: Callable[[Tensor], object]) -> None:
    with Waits() as waits:
        mistake(torch.tensor([1.0, -1.0, 2.0]))
    assert waits.total == 1


class SameBatch:
    """The same tokens at every step."""

    def __next__(self) -> Tensor:
        return tokens(4)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_step_waits_for_nothing_but_its_batch(kind: str, tmp_path: Path) -> None:
    model: Any = autoencoder() if kind == "autoencoder" else language_model(kind)
    loss: Loss = training_loss(model) if kind == "autoencoder" else model.loss
    config = Training(num_steps=100, batch_size=4, sequence_length=LENGTH, gradient_accumulation=2, log_every=50)
    loop = Loop(TrainingTask(model, loss, loss, tokens(1), 1.0), SameBatch(), config, tmp_path, 0, "cpu", lambda: False)
    loop.train_step()  # the optimizer's state is made
    with Waits() as waits:
        loop.train_step()
    assert waits.total == 0, waits.count


@pytest.mark.parametrize("kind", HEADS)
@torch.no_grad()
def test_a_head_samples_without_a_wait(kind: str) -> None:
    model = language_model(kind)
    assert isinstance(model, Calm)
    with Waits() as waits:
        model.head.sample(torch.randn(3, 32), 2, Generator().manual_seed(0))
    assert waits.total == 0, waits.count


@pytest.mark.parametrize("kind", ["token", "energy"])
def test_scoring_waits_as_often_whatever_the_number_of_layers(kind: str) -> None:
    found = []
    for num_layers in (2, 1):
        model = language_model(kind).eval()
        model.backbone.layers = model.backbone.layers[:num_layers]
        generators = [Generator().manual_seed(index) for index in range(2)]
        with Waits() as waits:
            sample_continuations(model, tokens(2), [CHUNK_SIZE, 16, 24], 3, 2 * CHUNK_SIZE, generators)
        found.append(waits.count)
    assert found[0] == found[1]


SCORED_BATCH = 40
"""Waits of a scored batch of windows, at the most; a backbone of any depth."""


@pytest.mark.parametrize("estimator", ["best", "paper"])
@pytest.mark.parametrize("kind", ["token", *HEADS])
def test_a_scored_batch_waits_seldom(kind: str, estimator: str) -> None:
    """Every head over two chunks of an n-gram, by the estimators of both protocols."""
    model = language_model(kind).eval()
    sampler, windows = ModelSampler(model), tokens(3).numpy()
    positions = list(range(CHUNK_SIZE, LENGTH - 3 * CHUNK_SIZE + 1, CHUNK_SIZE))
    names: dict[str, Estimator] = {"best": "all-pairs", "paper": "teacher-forced"}
    if kind == "token":
        names = {"best": "exact", "paper": "two-prefix"}
    arguments = (windows, positions, 4, (1, 2, 3, 4), [1, 2, 3], names[estimator])
    score_windows(sampler, *arguments)  # the decoder's weights are checked once
    with Waits() as waits:
        score_windows(sampler, *arguments)
    assert waits.total < SCORED_BATCH, waits.count
