"""A batch in the pieces that fit into memory: the same training, up to the order of sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calm_bench.config import Training
from calm_bench.lm.backbone import Layer
from calm_bench.row_noise import Rows
from calm_bench.training import language_model as language_model_training
from calm_bench.training import train_autoencoder, train_language_model
from calm_bench.training.micro_batches import in_pieces
from calm_bench.training.workers import Share
from calm_bench.training_options import TrainingOptions
from calm_bench.worker_memory import fitting_rows, rows_at_once
from calm_bench.worker_shares import CannotShare
from tests.calm_bench.training.tiny_trainings import (
    COMPARING_ROWS,
    STEPS,
    TRAINED,
    Trainings,
    assert_alike,
    assert_same,
    experiment,
    never,
)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("what", [what for what in TRAINED if what != "custom"])
def test_pieces_train_what_the_whole_trains(what: str, rows: int, trainings: Trainings, tmp_path: Path) -> None:
    result = trainings.of(what, TrainingOptions(micro_batch=rows))(tmp_path, never)
    reference, whole = trainings.undisturbed(what)
    assert_alike(tmp_path, whole, result, reference, besides=COMPARING_ROWS)
    plain = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert plain != (whole / "model" / "model.safetensors").read_bytes(), "it was not computed in pieces"


@pytest.mark.parametrize("rows", [4, 100])
def test_what_fits_whole_keeps_its_bits(rows: int, trainings: Trainings, tmp_path: Path) -> None:
    result = trainings.of("energy", TrainingOptions(micro_batch=rows))(tmp_path, never)
    reference, whole = trainings.undisturbed("energy")
    assert_same(result, tmp_path, reference, whole)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("what", ["token", "energy"])
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_layers_that_are_computed_again_train_the_same_bits(
    what: str, precision: str, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, whole = trainings.undisturbed(what, precision=precision)
    calls = []
    forward = Layer.forward

    def noted(self: Layer, *inputs: Any) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return forward(self, *inputs)

    monkeypatch.setattr(Layer, "forward", noted)
    options = TrainingOptions(activation_checkpointing=True)
    result = trainings.of(what, options, precision=precision)(tmp_path, never)
    assert_same(result, tmp_path, reference, whole)
    assert sum(calls) == 2 * STEPS, "once forward and once again, of one layer"


def test_memory_decides_where_nobody_else_does(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def noted(asked: object, rows: int, bytes_of: object, available: float | None) -> int:
        found = fitting_rows("auto", rows, bytes_of, available)  # type: ignore[arg-type]
        sizes.append(found)
        return found

    monkeypatch.setattr(language_model_training, "fitting_rows", noted)
    for name, available in (("much", 1e12), ("little", 1.0)):
        monkeypatch.setattr(language_model_training, "available_memory", lambda device, had=available: had)
        trainings.of("energy")(tmp_path / name, never)
    assert sizes == [4, 1]


def test_a_head_that_cannot_be_divided_is_refused_before_it_trains(tiny_tokens: Path, tmp_path: Path) -> None:
    trained = experiment("custom")
    autoencoder = tmp_path / "autoencoder"
    train_autoencoder(trained, tiny_tokens, autoencoder, "cpu", never)
    with pytest.raises(CannotShare, match=r"execution\.micro_batch=2 would divide 4 sequences.*gradient_accumulation"):
        train_language_model(
            trained, tiny_tokens, autoencoder, tmp_path / "model", "cpu", never, TrainingOptions(micro_batch=2)
        )


@pytest.mark.parametrize(
    ("available", "expected"), [(None, 12), (1e9, 12), (100 / 0.85, 12), (99 / 0.85, 6), (41 / 0.85, 4), (1.0, 1)]
)
def test_the_largest_even_pieces_that_fit(available: float | None, expected: int) -> None:
    """A fixed part of 4 bytes and 8 a sequence."""
    assert fitting_rows("auto", 12, lambda rows: 4 + 8 * rows, available) == expected


def test_what_is_asked_for_is_no_more_than_there_is() -> None:
    assert fitting_rows(5, 12, lambda rows: 1e30, 1.0) == 5
    assert fitting_rows(50, 12, lambda rows: 1e30, 1.0) == 12


@pytest.mark.parametrize(("workers", "accumulation", "rows"), [(1, 1, 12), (1, 3, 4), (3, 3, 4), (2, 3, 2), (5, 1, 3)])
def test_rows_of_a_worker(workers: int, accumulation: int, rows: int) -> None:
    training = Training(num_steps=1, batch_size=12, gradient_accumulation=accumulation)
    assert rows_at_once(training, workers) == rows


def test_workers_with_unequal_rows_have_as_many_pieces() -> None:
    """Five rows of two workers, one at a time: the first has two, the second three."""
    tokens = torch.arange(10).view(5, 2)
    shares = [Share(0, tokens[:2], Rows(0, 2, 5), workers=2), Share(0, tokens[2:], Rows(2, 5, 5), workers=2)]
    first, second = (in_pieces([share], 1, 5, workers=2) for share in shares)
    assert [(piece.rows.start, piece.rows.stop, piece.counts) for piece in first] == [
        (0, 1, True), (1, 2, True), (1, 2, False)
    ]  # fmt: skip
    assert [(piece.rows.start, piece.rows.stop, piece.counts) for piece in second] == [
        (2, 3, True), (3, 4, True), (4, 5, True)
    ]  # fmt: skip
    assert sum(piece.fraction for piece in first + second) == pytest.approx(1)
    assert torch.equal(torch.cat([piece.tokens for piece in (*first[:2], *second)]), tokens)


def test_workers_with_micro_batches_of_unequal_length_have_as_many_pieces() -> None:
    """Held-out text in whole micro-batches of four and one, dealt out to two workers that hold a model together."""
    shares = [Share(index, torch.zeros(size, 2), Rows(0, size, size)) for index, size in enumerate([4, 1])]
    first, second = (in_pieces([share], 2, 4, workers=2) for share in shares)
    assert [(piece.rows.count, piece.counts) for piece in first] == [(2, True), (2, True)]
    assert [(piece.rows.count, piece.counts) for piece in second] == [(1, True), (1, False)]
    # One process needs no company.
    assert [piece.rows.count for piece in in_pieces(shares, 2, 4, workers=1)] == [2, 2, 1]
