"""A training that holds a few shards brings no others of an object store, and ends with the bits of a folder's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.fingerprint import file_digest
from calm_bench.tokens.shard_batches import AHEAD
from calm_bench.tokens.shard_files import ShardFiles
from pipelines.execution.run_stage import StageError, run_stage
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.study.graph import stages_for
from pipelines.study.stage import StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS
from tests.object_stores import objects_of, remote_store

WINDOW = 2
TRAINING = {
    "num_steps": 30,
    "batch_size": 16,
    "sequence_length": 16,
    "warmup_steps": 2,
    "validation_batches": 1,
    "shuffle_shards": WINDOW,
}


@pytest.fixture
def graph(tmp_path: Path) -> StageGraph:
    """Of a token model on a text of many shards."""
    records = ({"text": f"document {number} " + "some words " * (number % 7)} for number in range(300))
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    model = {
        "kind": "token",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_layers": 1,
        "num_attention_heads": 2,
        "training": TRAINING,
    }
    described = {
        "corpus": Corpus(source=str(tmp_path / "text.jsonl"), validation_fraction=0.1, test_fraction=0.1),
        "tokens": Tokens(shard_tokens=500),
        "model": model,
        "evaluation": {"context_length": 64, "max_windows": 4, "num_samples": 2},
    }
    return stages_for(Experiment.model_validate(described))


def run(store: Store, graph: StageGraph, *kinds: str) -> dict[str, Any]:
    for kind in kinds:
        result = run_stage(store, graph[kind], STAGE_KINDS.get(kind), StageContext())
    return result


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many shards were on this machine whenever another one came."""
    found: list[int] = []
    bring = ShardFiles.bring

    def noted(self: ShardFiles, shard: int) -> object:
        ids = bring(self, shard)
        found.append(len(list(self.folder.glob("train/*.arrow"))))
        return ids

    monkeypatch.setattr(ShardFiles, "bring", noted)
    return found


def test_only_the_window_comes_to_this_machine(tmp_path: Path, graph: StageGraph, brought: list[int]) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    maker = remote_store(home, tmp_path / "maker")
    shards = run(maker, graph, "corpus", "tokens")["shards"]["train"]
    assert shards > 20
    trainer = remote_store(home, tmp_path / "trainer")
    run(trainer, graph, "language_model")
    assert len(brought) > 10
    assert max(brought) <= WINDOW + AHEAD + 1
    assert not trainer.is_whole(graph["tokens"])
    # Neither what was brought nor where it was is part of the model.
    model = trainer.folder(graph["language_model"])
    assert not {"inputs", "elsewhere.json"} & {path.name for path in model.rglob("*")}
    assert not any("inputs/" in key for key in objects_of(trainer).list(""))
    folder = Store(tmp_path / "folder")
    run(folder, graph, "corpus", "tokens", "language_model")
    weights = "model/model.safetensors"
    assert file_digest(model / weights) == file_digest(folder.folder(graph["language_model"]) / weights)


def test_a_score_needs_no_training_text(tmp_path: Path, graph: StageGraph) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    run(remote_store(home, tmp_path / "maker"), graph, "corpus", "tokens", "language_model")
    scorer, folder = remote_store(home, tmp_path / "scorer"), Store(tmp_path / "folder")
    found = run(scorer, graph, "evaluation")
    assert found["brierlm"] == run(folder, graph, "corpus", "tokens", "language_model", "evaluation")["brierlm"]
    assert not scorer.is_whole(graph["corpus"])
    assert not scorer.is_whole(graph["tokens"])
    assert scorer.is_whole(graph["language_model"])
    here = [path.relative_to(scorer.root).as_posix() for path in scorer.root.rglob("*.arrow")]
    assert not [name for name in here if "train" in name]


def test_a_shard_that_is_damaged_where_it_is_kept_is_found_and_made_anew(tmp_path: Path, graph: StageGraph) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    run(remote_store(home, tmp_path / "maker"), graph, "corpus", "tokens")
    [damaged] = (tmp_path / "home").rglob("train/shard-00003.arrow")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    trainer = remote_store(home, tmp_path / "trainer")
    with pytest.raises(StageError, match=r"shard-00003\.arrow") as failed:
        run(trainer, graph, "language_model")
    assert failed.value.cause == "transient"
    assert not trainer.is_done_now(graph["tokens"])
    run(trainer, graph, "corpus", "tokens", "language_model")
