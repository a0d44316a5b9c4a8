"""A study of a folder that grew: its stages take over what those of the smaller folder read and encoded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.corpora import input_parts
from calm_bench.fingerprint import file_digest
from pipelines.execution.run_stage import run_stage
from pipelines.store.store import Store
from pipelines.study.graph import stages_for
from pipelines.study.stage import StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS

NOT_MADE_OF_TEXT = {"config.json", "provenance.json", "files.json", "metrics.jsonl"}


def write_file(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    records = ({"text": f"document {number} of {name} " + "word " * 9} for number in range(40))
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def run(store: Store, source: Path) -> StageGraph:
    corpus = Corpus(source=str(source), validation_fraction=0.2, test_fraction=0.2)
    graph = stages_for(Experiment(corpus=corpus, tokens=Tokens(shard_tokens=2000)))
    for kind in ("corpus", "tokens"):
        run_stage(store, graph[kind], STAGE_KINDS.get(kind), StageContext())
    return graph


def written(store: Store, graph: StageGraph) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in ("corpus", "tokens"):
        folder = store.folder(graph[kind])
        files = (path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_MADE_OF_TEXT)
        found |= {f"{kind}/{path.relative_to(folder)}": file_digest(path) for path in files}
    return found


def inodes(store: Store, graph: StageGraph) -> set[int]:
    return {path.stat().st_ino for path in store.folder(graph["corpus"]).rglob("part-*.arrow")}


def test_a_study_of_a_grown_folder_reads_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_parts, "PART_BYTES", 4000)
    for name in "abc":
        write_file(tmp_path / "source", name)
    store = Store(tmp_path / "store")
    before = run(store, tmp_path / "source")
    write_file(tmp_path / "source", "ab")
    after, fresh = run(store, tmp_path / "source"), Store(tmp_path / "fresh")
    assert after["corpus"].identity != before["corpus"].identity
    assert run(fresh, tmp_path / "source")["corpus"] == after["corpus"]
    assert written(store, after) == written(fresh, after)
    # The files of the finished corpus are shared, not copied: three splits of each of three files.
    assert len(inodes(store, before)) == 9
    assert inodes(store, before) < inodes(store, after)
    for graph in (before, after):
        assert store.corruption(graph["corpus"]) == store.corruption(graph["tokens"]) == []


def test_stages_of_another_revision_are_left_alone(tmp_path: Path) -> None:
    write_file(tmp_path / "source", "a")
    store = Store(tmp_path / "store")
    corpus = run(store, tmp_path / "source")["corpus"]
    write_file(tmp_path / "source", "b")
    other = run(store, tmp_path / "source")["corpus"]
    assert store.others_of(other) == [store.folder(corpus)]
    description = store.folder(corpus) / "config.json"
    description.write_text(description.read_text().replace('"revision": 1', '"revision": 0'))
    assert store.others_of(other) == []
    description.write_text("{")
    assert store.others_of(other) == []
