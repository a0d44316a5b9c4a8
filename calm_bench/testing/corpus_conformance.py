"""What every corpus source must do, wherever its documents come from.

A source's test class inherits :class:`CorpusConformance` and names a configuration; pytest then runs every test of it::

    from calm_bench.config import Corpus
    from calm_bench.testing.corpus_conformance import CorpusConformance


    class TestLetters(CorpusConformance):
        config = Corpus(source="letters")

A source of files overrides the fixture ``corpus``, and writes them into ``tmp_path`` first.
"""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import pytest

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusSource, Document, PartedSource, Skipped
from calm_bench.corpora.source import SPLIT_FIELDS, find_source, identity_config


class CorpusConformance:
    """Inherit, set ``config``, and run: order, independence of global state, text, origin, identity."""

    config: ClassVar[Corpus]
    """Configuration of the source under test; its ``source`` is a name that ``CORPORA`` knows, or a path."""
    max_documents: ClassVar[int] = 200
    """So many documents are read, the first ones, that large sources are tested fast."""

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Corpus:
        return self.config

    @pytest.fixture
    def source(self, corpus: Corpus) -> CorpusSource:
        return find_source(corpus)

    def read(self, source: CorpusSource, corpus: Corpus) -> tuple[list[Document], Mapping[str, int]]:
        """The first documents, and how many were skipped until then for each reason."""
        skipped = Skipped()
        return list(islice(source.documents(corpus, skipped), self.max_documents)), skipped.counts

    def test_documents_are_the_same_in_the_same_order(self, source: CorpusSource, corpus: Corpus) -> None:
        first = self.read(source, corpus)
        assert first[0]
        assert self.read(source, corpus) == first

    def test_global_random_numbers_are_neither_read_nor_changed(self, source: CorpusSource, corpus: Corpus) -> None:
        read = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            read.append(self.read(source, corpus))
            assert random.random() == random.Random(seed).random()
            assert np.random.random() == np.random.RandomState(seed).random()
        assert read[0] == read[1]

    def test_two_readers_do_not_disturb_each_other(self, source: CorpusSource, corpus: Corpus) -> None:
        expected, _ = self.read(source, corpus)
        together = zip(source.documents(corpus, Skipped()), source.documents(corpus, Skipped()), strict=True)
        for document, pair in zip(expected, together, strict=False):
            assert pair == (document, document)

    def test_a_document_has_text_and_a_relative_origin(self, source: CorpusSource, corpus: Corpus) -> None:
        for document in self.read(source, corpus)[0]:
            assert isinstance(document.text, str)
            document.text.encode()
            assert document.where
            assert not PurePosixPath(document.where).is_absolute()
            assert ".." not in PurePosixPath(document.where).parts

    def test_parts_together_are_the_documents(self, source: CorpusSource, corpus: Corpus) -> None:
        if not isinstance(source, PartedSource):
            return
        parts = source.divide(corpus, Skipped())
        assert [*map(repr, source.divide(corpus, Skipped()))] == [*map(repr, parts)]
        assert source.num_bytes(corpus) > 0 or len(parts) == 1
        read = [source.read_part(corpus, pickle.loads(pickle.dumps(part)), Skipped()) for part in parts]
        # The last ones are opened first: what one part gives must not depend on those before it.
        for documents in reversed(read):
            next(documents, None)
        again = (source.read_part(corpus, part, Skipped()) for part in parts)
        found = [document.text for documents in again for document in documents]
        assert found[: self.max_documents] == [document.text for document in self.read(source, corpus)[0]]

    def test_fields_are_settings_of_a_corpus(self, source: CorpusSource) -> None:
        assert set(source.fields) <= set(Corpus.model_fields)
        assert not set(source.fields) & {"source", *SPLIT_FIELDS}

    def test_how_the_documents_are_split_does_not_change_them(self, source: CorpusSource, corpus: Corpus) -> None:
        other = corpus.model_copy(update={"split_seed": corpus.split_seed + 1, "test_fraction": 0.25})
        assert self.read(source, other) == self.read(source, corpus)

    def test_dependencies_are_json_and_constant(self, source: CorpusSource, corpus: Corpus) -> None:
        found: dict[str, Any] = source.dependencies(corpus)
        assert json.loads(json.dumps(found)) == found
        assert source.dependencies(corpus) == found

    def test_the_identity_holds_every_field(self, source: CorpusSource, corpus: Corpus) -> None:
        content = identity_config(corpus)
        assert json.loads(json.dumps(content)) == content
        assert {*source.fields, *SPLIT_FIELDS} <= set(content)
