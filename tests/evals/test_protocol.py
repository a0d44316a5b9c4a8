"""The protocol's positions and its hash."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from calm_bench.config import Evaluation
from evals.protocol import Protocol, protocol_for


def test_every_setting_moves_the_hash() -> None:
    base = protocol_for(Evaluation(), "corpus", "tokenizer")
    assert base.hash == protocol_for(Evaluation(), "corpus", "tokenizer").hash
    assert len(base.hash) == 16
    changes: dict[str, object] = {
        "corpus_digest": "other",
        "tokenizer_digest": "other",
        "split": "validation",
        "context_length": 512,
        "first_position": 64,
        "position_stride": 16,
        "ngram_lengths": (1, 2),
        "num_samples": 16,
        "max_windows": 10,
        "decode_mode": "sample T=0.5",
        "seed": 1,
        "estimator_version": 2,
    }
    assert set(changes) | {"estimator"} == set(Protocol.model_fields)
    hashes = {Protocol.model_validate(base.model_dump() | {name: value}).hash for name, value in changes.items()}
    assert len(hashes | {base.hash}) == len(changes) + 1


def test_every_evaluation_setting_enters() -> None:
    assert set(Evaluation.model_fields) <= set(Protocol.model_fields)


def test_positions_leave_room_for_the_longest_ngram() -> None:
    rules = protocol_for(Evaluation(context_length=44, first_position=8, position_stride=8), "c", "t")
    assert rules.positions == (8, 16, 24, 32, 40)
    assert (
        protocol_for(Evaluation(context_length=43, first_position=8, position_stride=8), "c", "t").positions[-1] == 32
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"ngram_lengths": (2, 1)}, "increasing"), ({"first_position": 253}, "leaves no 4-gram"), ({"typo": 1}, "typo")],
)
def test_impossible_protocols_are_refused(changes: dict[str, object], message: str) -> None:
    base = protocol_for(Evaluation(), "corpus", "tokenizer")
    with pytest.raises(ValidationError, match=message):
        Protocol.model_validate(base.model_dump() | changes)
