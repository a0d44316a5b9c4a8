"""Trainings that hold a few shards of their text: resumed to the same bits, with as many workers as there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.config import Experiment, Tokens
from calm_bench.tokens import write_tokens
from tests.calm_bench.training.tiny_trainings import Trainings, cut, metrics

SETTINGS = {"shuffle_shards": 2}


@pytest.fixture
def small_shards(trainings: Trainings, tmp_path: Path) -> Trainings:
    """The same text in many shards."""
    tokens = tmp_path / "tokens"
    write_tokens(Tokens(shard_tokens=100), trainings.tokens.parent / "corpus", tokens)
    assert len(list((tokens / "train").glob("shard-*"))) > 5
    return Trainings(tokens, trainings.autoencoder, tmp_path / "references")


@pytest.mark.parametrize("what", ["autoencoder", "token", "energy"])
def test_it_goes_on_to_the_same_bits(what: str, small_shards: Trainings, tmp_path: Path) -> None:
    for how, step in [("killed", 3), ("stopped", 4), ("killed", 7), ("stopped", 11)]:
        cut(small_shards.of(what, **SETTINGS), tmp_path / "own", how, step)
    small_shards.assert_ends_like_the_undisturbed(tmp_path / "own", what, **SETTINGS)


def test_it_is_another_order(small_shards: Trainings) -> None:
    _, window = small_shards.undisturbed("token", **SETTINGS)
    _, whole = small_shards.undisturbed("token")
    assert metrics(window) != metrics(whole)


def test_it_enters_an_identity_only_where_it_is_asked_for() -> None:
    assert "shuffle_shards" not in Experiment().model.training.model_dump(mode="json")
    training = Experiment().model.training.model_copy(update={"shuffle_shards": 3})
    assert training.model_dump(mode="json")["shuffle_shards"] == 3
