"""Corpora: documents from the standard library, local files, Hugging Face data sets or a language of known truth."""

from __future__ import annotations

from calm_bench.corpora.base import CorpusError, CorpusSource, Document, Skipped
from calm_bench.corpora.corpus_part import PartFound
from calm_bench.corpora.source import (
    CORPORA,
    corpus_code,
    corpus_dependencies,
    divisible_bytes,
    identity_config,
    source_name,
)
from calm_bench.corpora.split_files import SPLITS, Split, read_documents
from calm_bench.corpora.write import CorpusReport, write_corpus

__all__ = [
    "CORPORA",
    "SPLITS",
    "CorpusError",
    "CorpusReport",
    "CorpusSource",
    "Document",
    "PartFound",
    "Skipped",
    "Split",
    "corpus_code",
    "corpus_dependencies",
    "divisible_bytes",
    "identity_config",
    "read_documents",
    "source_name",
    "write_corpus",
]
