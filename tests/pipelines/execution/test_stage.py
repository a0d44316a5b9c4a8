from __future__ import annotations

import pickle

import pytest

from pipelines.study.stage import Stage, StageGraph


def test_identity_follows_content_and_inputs_only() -> None:
    base = Stage("corpus", 1, {"a": 1}, settings={"path": "here"}, label="one")
    same = Stage("corpus", 1, {"a": 1.0}, settings={"path": "there"}, label="two")
    assert base == same
    assert hash(base) == hash(same)
    reader = Stage("tokens", 1, {}, {"corpus": base})
    assert reader == Stage("tokens", 1, {}, {"corpus": same})
    for other in (Stage("corpus", 2, {"a": 1}), Stage("corpus", 1, {"a": 2}), Stage("text", 1, {"a": 1})):
        assert other.identity != base.identity
        assert Stage("tokens", 1, {}, {"corpus": other}).identity != reader.identity
    assert Stage("tokens", 1, {}, {"text": base}).identity != reader.identity


def test_identity_survives_the_way_to_a_worker() -> None:
    stage = Stage("tokens", 1, {"b": [1, 2]}, {"corpus": Stage("corpus", 1, {})})
    assert pickle.loads(pickle.dumps(stage)).identity == stage.identity


def test_graph_refuses_what_cannot_be_run_in_order() -> None:
    corpus = Stage("corpus", 1, {})
    tokens = Stage("tokens", 1, {}, {"corpus": corpus})
    assert list(StageGraph((corpus, tokens))) == ["corpus", "tokens"]
    with pytest.raises(ValueError, match="does not stand before it"):
        StageGraph((tokens, corpus))
    with pytest.raises(ValueError, match="second corpus"):
        StageGraph((corpus, Stage("corpus", 1, {"other": True})))
