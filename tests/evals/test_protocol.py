"""The protocol's positions and its hash."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from calm_bench.config import Evaluation
from evals.protocol import EvaluationError, Protocol, evaluation_settings, protocol_for


def test_every_setting_moves_the_hash() -> None:
    base = protocol_for(Evaluation(), "corpus", "tokenizer")
    assert base.hash == protocol_for(Evaluation(), "corpus", "tokenizer").hash
    assert len(base.hash) == 16
    changes: dict[str, object] = {
        "name": "paper",
        "corpus_digest": "other",
        "tokenizer_digest": "other",
        "split": "validation",
        "context_length": 512,
        "first_position": 64,
        "position_stride": 16,
        "last_position": 200,
        "ngram_lengths": (1, 2),
        "num_samples": 16,
        "max_windows": 10,
        "decode_mode": "sample T=0.5",
        "seed": 1,
    }
    assert set(changes) == set(Protocol.model_fields)
    hashes = {Protocol.model_validate(base.model_dump() | {name: value}).hash for name, value in changes.items()}
    assert len(hashes | {base.hash}) == len(changes) + 1


def test_every_evaluation_setting_enters() -> None:
    assert set(Evaluation.model_fields) - {"protocol"} <= set(Protocol.model_fields)
    assert protocol_for(Evaluation(protocol="paper"), "c", "t").name == "paper"


def test_positions_leave_room_for_the_longest_ngram() -> None:
    rules = protocol_for(Evaluation(context_length=44, first_position=8, position_stride=8), "c", "t")
    assert rules.positions == (8, 16, 24, 32, 40)
    assert (
        protocol_for(Evaluation(context_length=43, first_position=8, position_stride=8), "c", "t").positions[-1] == 32
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ngram_lengths": (2, 1)}, "increasing"),
        ({"ngram_lengths": ()}, "not empty"),
        ({"first_position": 253}, "leaves no 4-gram"),
        ({"last_position": 253}, "between first_position 32 and 252"),
        ({"last_position": 31}, "between first_position 32 and 252"),
        ({"num_samples": 1}, "num_samples"),
        ({"typo": 1}, "typo"),
    ],
)
def test_impossible_protocols_are_refused(changes: dict[str, object], message: str) -> None:
    base = protocol_for(Evaluation(), "corpus", "tokenizer")
    with pytest.raises(ValidationError, match=message):
        Protocol.model_validate(base.model_dump() | changes)


@pytest.mark.parametrize(
    ("chunk_size", "length", "positions"),
    [
        # The token model at every position; chunks of 4 and more at every chunk but the first.
        (None, 12, [1, 2, 3, 4, 5, 6, 7, 8]),
        (4, 20, [4, 8, 12, 16]),
        (8, 32, [8, 16, 24]),
        # A 4-gram takes several smaller chunks, and the reference drops the last start from which they would fit.
        (1, 12, [1, 2, 3, 4, 5, 6, 7]),
        (2, 16, [2, 4, 6, 8, 10]),
        (3, 18, [3, 6, 9]),
    ],
)
def test_positions_of_the_paper(chunk_size: int | None, length: int, positions: list[int]) -> None:
    rules = protocol_for(Evaluation(protocol="paper", context_length=length), "c", "t", chunk_size)
    assert list(rules.positions) == positions
    assert rules.num_samples == 2
    assert rules.horizon == 4


def test_the_paper_ranks_each_chunk_size_by_itself_and_matched_all_together() -> None:
    sizes = [None, 1, 2, 4, 8]
    paper = [protocol_for(Evaluation(protocol="paper"), "c", "t", size) for size in sizes]
    matched = [protocol_for(Evaluation(), "c", "t", size) for size in sizes]
    assert len({rules.hash for rules in paper} | {matched[0].hash}) == 6
    assert len({rules.hash for rules in matched}) == 1


def test_the_paper_does_not_read_what_belongs_to_matched() -> None:
    plain = protocol_for(Evaluation(protocol="paper"), "c", "t", 2)
    changed = Evaluation(protocol="paper", first_position=255, position_stride=3, num_samples=16)
    assert protocol_for(changed, "c", "t", 2) == plain
    assert protocol_for(Evaluation(protocol="paper", seed=1), "c", "t", 2).hash != plain.hash


@pytest.mark.parametrize(
    ("chunk_size", "length", "message"),
    [
        (4, 18, "not a multiple of the model's chunk size 4"),
        (4, 4, "too short .* needs 8 or more"),
        (2, 6, "too short .* needs 8 or more"),
        (None, 4, "too short .* needs 5 or more"),
    ],
)
def test_windows_that_the_paper_cannot_use(chunk_size: int | None, length: int, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        protocol_for(Evaluation(protocol="paper", context_length=length), "c", "t", chunk_size)
    enough = {4: 8, 2: 8, None: 5}[chunk_size]
    assert len(protocol_for(Evaluation(protocol="paper", context_length=enough), "c", "t", chunk_size).positions) == 1


@pytest.mark.parametrize(
    "evaluation",
    [
        Evaluation(num_samples=5, max_windows=7, split="validation"),
        Evaluation(protocol="paper", context_length=64, seed=3),
    ],
)
def test_settings_can_be_read_from_a_protocol(evaluation: Evaluation) -> None:
    rules = protocol_for(evaluation, "c", "t", 2)
    assert Evaluation.model_validate(evaluation_settings(rules.model_dump(mode="json"))) == evaluation
