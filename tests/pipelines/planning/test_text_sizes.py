"""The text that a plan counts on is the text that is read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from calm_bench.config import Corpus, Experiment
from pipelines.planning.text_sizes import COMPRESSED_EXPANSION, text_sizes
from pipelines.store.store import Store
from pipelines.study.graph import stages_for


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
