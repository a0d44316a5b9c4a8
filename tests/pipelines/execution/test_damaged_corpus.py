"""A corpus that was damaged on disk becomes no tokens: it is set aside, and made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calm_bench.config import Corpus, Experiment
from pipelines.execution.run_stage import StageError, run_stage
from pipelines.store.store import Store
from pipelines.study.graph import stages_for
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS


def test_a_letter_that_changed_on_disk_is_found_before_it_is_a_token(tmp_path: Path) -> None:
    texts = (f"document {number} with some words" for number in range(300))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    graph = stages_for(Experiment(corpus=Corpus(source=str(tmp_path / "a.jsonl"))))
    store, other = Store(tmp_path / "store"), Store(tmp_path / "other")

    def run(into: Store, kind: str) -> object:
        return run_stage(into, graph[kind], STAGE_KINDS.get(kind), StageContext())

    run(store, "corpus")
    path = store.folder(graph["corpus"]) / "train.arrow"
    content = bytearray(path.read_bytes())
    content[content.index(b"some words")] ^= 1
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"train\.arrow has other content") as failed:
        run(store, "tokens")
    assert failed.value.cause == "transient"
    for kind in ("corpus", "tokens"):
        assert run(store, kind) == run(other, kind)
