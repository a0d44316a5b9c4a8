"""What changes between the reading of a study and the run of a stage: no result stands for what it was not made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.corpora import corpus_part
from calm_bench.tokens.bpe import BpeTokenizer
from calm_bench.trusted_code import trust_code
from pipelines.execution.run_stage import StageError, run_stage
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.stage import StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS
from tests.evals.own_tasks import write_rows, write_task

HEAD = """
import torch
from calm_bench.heads import Head

class Mean(Head):
    def __init__(self, hidden_size, latent_size):
        super().__init__()
        self.network = torch.nn.Linear(hidden_size, latent_size)

    def loss(self, hidden, target_mean, target_log_std, generator=None):
        return (self.network(hidden) - target_mean).square().mean(), {}

    def sample(self, hidden, num_samples, generator=None):
        mean = self.network(hidden)
        return mean.expand(num_samples, *mean.shape) * 1.0
"""
Describe = Callable[..., StageGraph]


@pytest.fixture
def described(tiny_study: Callable[..., Study]) -> Describe:
    """The stages of a tiny experiment; keywords replace sections, those of ``model`` its settings."""

    def describe(model: dict[str, Any] | None = None, **sections: Any) -> StageGraph:
        study = tiny_study(**sections).model_dump(mode="json")
        given = model or {"kind": "token"}
        left_out = {"head"} if "kind" in given else set()
        study["model"] = {name: value for name, value in study["model"].items() if name not in left_out} | given
        return stages_for(Study.model_validate(study).experiment())

    return describe


def run(store: Store, graph: StageGraph, *kinds: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in kinds:
        found = run_stage(store, graph[kind], STAGE_KINDS.get(kind), StageContext())
    return found


def refused(store: Store, graph: StageGraph, kind: str, message: str) -> None:
    with pytest.raises(StageError, match=f"{message}.* has changed since "):
        run(store, graph, kind)
    assert not store.is_done(graph[kind])


def test_text(tmp_path: Path, store: Store, described: Describe) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"document {number}" for number in range(60)))
    graph = described(corpus={"source": str(text)})
    text.write_text("\n\n".join(f"another {number}" for number in range(60)))
    refused(store, graph, "corpus", "text.txt")
    run(store, described(corpus={"source": str(text)}), "corpus")


def test_text_that_is_written_to_while_it_is_read(
    tmp_path: Path, store: Store, described: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"document {number}" for number in range(60)))
    graph = described(corpus={"source": str(text)})
    written = corpus_part.write_part

    def write_part(*arguments: Any) -> Any:
        found = written(*arguments)
        text.write_text(text.read_text().replace("document", "argument"))
        return found

    monkeypatch.setattr("calm_bench.corpora.write.write_part", write_part)
    refused(store, graph, "corpus", "text.txt")


def test_a_tokenizers_folder(tmp_path: Path, store: Store, described: Describe) -> None:
    folder = tmp_path / "tokenizer"
    BpeTokenizer.train(["the quick brown fox jumps over the lazy dog\n"] * 20, 270).save(folder)
    graph = described(tokens={"tokenizer": str(folder)})
    run(store, graph, "corpus")
    shutil.rmtree(folder)
    BpeTokenizer.train(["the quick brown fox jumps over the lazy dog\n"] * 20, 280).save(folder)
    refused(store, graph, "tokens", "tokenizer")


def change_labels(folder: Path) -> None:
    write_rows(folder / "mine.jsonl", [{"question": "q", "choices": ["even", "odd"], "answer": 0}] * 6)


def change_file(folder: Path) -> None:
    path = folder / "mine.yaml"
    path.write_text(path.read_text() + "description: Think\n")


@pytest.mark.slow
@pytest.mark.parametrize("change", [change_labels, change_file])
def test_a_task(tmp_path: Path, store: Store, described: Describe, change: Callable[[Path], None]) -> None:
    task = write_task(tmp_path / "mine")
    graph = described(benchmarks={"tasks": [str(task)]})
    run(store, graph, "corpus", "tokens", "language_model")
    change(tmp_path / "mine")
    refused(store, graph, "benchmarks", "mine.yaml")
    assert run(store, described(benchmarks={"tasks": [str(task)]}), "benchmarks")["tasks"]


@pytest.mark.slow
def test_code_of_a_head(tmp_path: Path, store: Store, described: Describe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever trains it, and whatever reads what was trained."""
    file = tmp_path / "changed_head.py"
    file.write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    trust_code("changed_head:Mean")
    graph = described({"chunk_size": 2, "head": {"kind": "custom", "target": "changed_head:Mean"}})
    run(store, graph, "corpus", "tokens", "autoencoder")
    file.write_text(HEAD.replace("* 1.0", "* 2.0"))
    refused(store, graph, "language_model", "changed_head:Mean")
    file.write_text(HEAD)
    run(store, graph, "language_model")
    file.write_text(HEAD.replace("* 1.0", "* 2.0"))
    refused(store, graph, "evaluation", "changed_head.py")
