"""A corpus whose files are gone is the one that the store made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError
from pipelines.execution.run_stage import run_stage
from pipelines.store.kept_corpus import corpus_identity_in
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.graph import corpus_identity_of, stages_for
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS


def test_a_finished_corpus_outlives_its_file(tmp_path: Path) -> None:
    store, text = Store(tmp_path / "runs"), tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Paragraph {number} of a text that is long enough." for number in range(400)))
    study = resolve_study("smoke", [f"corpus.source={text}"])
    stage = stages_for(study.experiment())["corpus"]
    before = corpus_identity_of(study.corpus)
    text.rename(tmp_path / "elsewhere.txt")
    said: list[str] = []
    with pytest.raises(CorpusError):
        corpus_identity_in(store, said.append)(study.corpus)
    (tmp_path / "elsewhere.txt").rename(text)
    run_stage(store, stage, STAGE_KINDS.get("corpus"), StageContext())
    text.unlink()
    assert corpus_identity_in(store, said.append)(study.corpus) == before
    assert len(said) == 1
    assert str(text) in said[0]
    again = stages_for(study.experiment(), corpus_identity_in(store))["corpus"]
    assert (again.identity, store.is_done(again)) == (stage.identity, True)
    with pytest.raises(CorpusError):
        corpus_identity_in(store)(Corpus(source=str(text), test_fraction=0.3))
