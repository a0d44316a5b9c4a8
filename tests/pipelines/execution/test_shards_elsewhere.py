"""Of an object store's text a stage and a command bring what they read, and end with the bits of a folder's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.corpora import SPLITS, bring_file
from calm_bench.fingerprint import file_digest
from calm_bench.tokens import TokenStream
from calm_bench.tokens.shard_batches import AHEAD
from calm_bench.tokens.shard_files import ShardFiles
from pipelines.execution.run_stage import StageError, run_stage
from pipelines.scoring.models import TrainedModel
from pipelines.scoring.scoring import score_model
from pipelines.scoring.stored_text import prepare_text
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.study.graph import stages_for
from pipelines.study.kinds import benchmarks, evaluation
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
    return graph_of(tmp_path, shard_tokens=500)


@pytest.fixture
def fine_graph(tmp_path: Path) -> StageGraph:
    """The same with many shards of held-out text too, of which windows that are scored touch a few."""
    return graph_of(tmp_path, shard_tokens=110, sequence_length=64, shuffle_shards=None)


def graph_of(tmp_path: Path, shard_tokens: int, **training: Any) -> StageGraph:
    records = ({"text": f"document {number} " + "some words " * (number % 7)} for number in range(300))
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    model = {
        "kind": "token",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_layers": 1,
        "num_attention_heads": 2,
        "training": TRAINING | training,
    }
    described = {
        "corpus": Corpus(source=str(tmp_path / "text.jsonl"), validation_fraction=0.1, test_fraction=0.1),
        "tokens": Tokens(shard_tokens=shard_tokens),
        "model": model,
        "evaluation": {"context_length": 64, "max_windows": 4, "num_samples": 2},
        "benchmarks": {"tasks": ["brierlm"], "limit": 8, "num_samples": 2},
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


def text_in(store: Store) -> list[str]:
    """The files of text on this machine."""
    names = sorted("/".join(path.parts[-2:]) for path in store.root.rglob("*.arrow"))
    return [name for name in names if any(split in name for split in SPLITS)]


def test_a_score_brings_the_windows_that_are_scored(tmp_path: Path, fine_graph: StageGraph) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    maker = remote_store(home, tmp_path / "maker")
    run(maker, fine_graph, "corpus", "tokens", "language_model")
    scorer, folder = remote_store(home, tmp_path / "scorer"), Store(tmp_path / "folder")
    brought: list[str] = []
    evaluate = evaluation.run_evaluation

    def noted(*arguments: Any) -> dict[str, Any]:
        result = evaluate(*arguments)
        brought.extend(text_in(scorer))
        return result

    kind = replace(STAGE_KINDS.get("evaluation"), run=noted)
    found = run_stage(scorer, fine_graph["evaluation"], kind, StageContext())
    expected = run(folder, fine_graph, "corpus", "tokens", "language_model", "evaluation")
    assert found["brierlm"] == expected["brierlm"]
    # Four windows of little more than half a shard: two each at most.
    assert maker.result(fine_graph["tokens"])["shards"]["test"] > 11
    assert {name.partition("/")[0] for name in brought} == {"test"}
    assert 4 <= len([name for name in brought if "shard" in name]) <= 8
    assert not scorer.is_whole(fine_graph["corpus"])
    assert not scorer.is_whole(fine_graph["tokens"])
    assert scorer.is_whole(fine_graph["language_model"])
    # What was brought goes with the stage's work.
    assert text_in(scorer) == []


def test_tasks_bring_the_test_documents_and_no_tokens(tmp_path: Path, graph: StageGraph) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    run(remote_store(home, tmp_path / "maker"), graph, "corpus", "tokens", "language_model")
    scorer, folder = remote_store(home, tmp_path / "scorer"), Store(tmp_path / "folder")
    brought: list[str] = []
    tasks = benchmarks.run_benchmarks

    def noted(*arguments: Any) -> dict[str, Any]:
        result = tasks(*arguments)
        brought.extend(text_in(scorer))
        return result

    kind = replace(STAGE_KINDS.get("benchmarks"), run=noted)
    found = run_stage(scorer, graph["benchmarks"], kind, StageContext())
    assert brought == ["corpus/test.arrow"]
    assert found == run(folder, graph, "corpus", "tokens", "language_model", "benchmarks")


def model_in(store: Store, graph: StageGraph) -> TrainedModel:
    evaluation = {"context_length": 64, "max_windows": 4, "num_samples": 2}
    return TrainedModel(store.fetch(graph["language_model"]) / "model", graph["corpus"].settings["corpus"], evaluation)


def test_the_command_brings_what_it_scores_and_keeps_it(
    tmp_path: Path, graph: StageGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    maker, scorer = remote_store(home, tmp_path / "maker"), remote_store(home, tmp_path / "scorer")
    run(maker, graph, "corpus", "tokens", "language_model")
    model = model_in(scorer, graph)
    # The command's tokens have shards of the default size.
    own = prepare_text(model, maker)[1]
    score = score_model(model, scorer)
    assert score.brierlm == score_model(model, maker).brierlm
    assert text_in(scorer) == ["test/documents.arrow", "test/shard-00000.arrow"]
    assert not scorer.is_whole(own["tokens"])
    # Another time, nothing is brought.
    monkeypatch.setattr(bring_file, "_fetch", None)
    assert score_model(model, scorer).brierlm == score.brierlm
    monkeypatch.undo()
    # Whole, where somebody needs all of it.
    assert TokenStream.open(scorer.fetch(own["tokens"]), "train")
    assert score_model(model, scorer).brierlm == score.brierlm


def test_text_that_is_damaged_where_it_is_kept_is_made_anew_by_the_command(tmp_path: Path, graph: StageGraph) -> None:
    home = ObjectStore(f"file://{tmp_path / 'home'}")
    maker, scorer = remote_store(home, tmp_path / "maker"), remote_store(home, tmp_path / "scorer")
    run(maker, graph, "corpus", "tokens", "language_model")
    model = model_in(scorer, graph)
    own = prepare_text(model, maker)[1]
    [damaged] = (tmp_path / "home" / "stages" / "tokens" / own["tokens"].identity).rglob("test/shard-00000.arrow")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"shard-00000\.arrow.* It is made anew"):
        score = score_model(model, scorer)
    assert score.brierlm == score_model(model, Store(tmp_path / "folder")).brierlm


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
