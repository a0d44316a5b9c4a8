"""The text that a plan counts on is the text that is read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calm_bench.config import Corpus, Experiment
from pipelines.planning.text_sizes import COMPRESSED_EXPANSION, text_sizes
from pipelines.store.store import Store
from pipelines.study.cost import CostContext, StageCost, TextSizes
from pipelines.study.graph import stages_for
from pipelines.study.kinds.corpus import corpus_cost
from pipelines.study.kinds.tokens import tokens_cost
from pipelines.study.stage import Stage
from pipelines.study.workload import Workload


def estimated(source: Path, store: Path) -> float | None:
    experiment = Experiment(corpus=Corpus(source=str(source)))
    return text_sizes(experiment, stages_for(experiment), Store(store)).num_bytes


def test_files_that_nobody_reads_are_not_counted(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("ten bytes\n" * 100)
    (texts / "b.txt.gz").write_bytes(gzip.compress(b"ten bytes\n" * 100))
    packed = (texts / "b.txt.gz").stat().st_size
    expected = pytest.approx(1000 + COMPRESSED_EXPANSION * packed)
    assert estimated(texts, tmp_path / "store") == expected
    # Parquet is read as it is only: compressed once more, it is a file of another kind to the corpus.
    for name in ("c.parquet.gz", "d.arrow.zst", "e.pdf", ".hidden.txt", ".git/f.txt"):
        (texts / name).parent.mkdir(exist_ok=True)
        (texts / name).write_bytes(b"x" * 5000)
    assert estimated(texts, tmp_path / "store") == expected


@pytest.mark.parametrize("quality", [{"duplicates": "near"}, {"decontaminate_words": 13}])
def test_a_corpus_whose_documents_are_compared_takes_several_times_as_long(quality: dict[str, Any]) -> None:
    def seconds(corpus: Corpus) -> float:
        price = SimpleNamespace(vocab_size=257)
        sizes = TextSizes({"train": 1e9}, {"train": 1e9})
        context = CostContext(Experiment(corpus=corpus), price, sizes, {}, "cpu", unasked, unasked, at_once=4)
        found = corpus_cost(Stage("corpus", 1, {}), context).seconds
        assert found is not None
        return found

    assert 4 < seconds(Corpus(source="texts", quality=quality)) / seconds(Corpus(source="texts")) < 25


@pytest.mark.parametrize(("cost", "kind"), [(corpus_cost, "corpus"), (tokens_cost, "tokens")])
def test_workers_share_much_text_and_no_little_text(cost: Callable[[Stage, CostContext], StageCost], kind: str) -> None:
    experiment = Experiment(corpus=Corpus(source="texts"))

    def seconds(num_bytes: float, at_once: int) -> float:
        sizes = TextSizes({"train": num_bytes}, {"train": num_bytes})
        price = SimpleNamespace(vocab_size=257)
        context = CostContext(experiment, price, sizes, {}, "cpu", unasked, unasked, at_once=at_once)
        found = cost(Stage(kind, 1, {}), context).seconds
        assert found is not None
        return found

    assert seconds(6e10, 4) == pytest.approx(seconds(6e10, 1) / 4, rel=0.01)
    assert seconds(6e7, 4) == seconds(6e7, 1)


def unasked(workload: Workload) -> Any:
    raise AssertionError("text has no workload")
