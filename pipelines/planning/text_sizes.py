"""How much text a study reads, as far as its description tells."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.corpora import CorpusError
from calm_bench.corpora.file_source import KINDS
from calm_bench.corpora.input_file import format_of, is_compressed, kind_of
from calm_bench.corpora.local import walk_files
from calm_bench.corpora.mixture import shares_of
from calm_bench.corpora.remote import find_remote
from calm_bench.corpora.source import ADDRESS
from pipelines.store.store import Store
from pipelines.study.cost import TextSizes
from pipelines.study.stage import StageGraph

STDLIB_BYTES = {"train": 1.68e6, "validation": 1.76e5, "test": 3.87e5}
"""Bytes of ``corpus.source=stdlib`` with its default split on Python 3.11; a release more or less changes it by a
few %."""
BYTES_PER_TOKEN = ((1024, 2.0), (8192, 3.5), (65536, 4.2))
"""English text by a vocabulary of at most so many words; larger ones 4.5."""
PARQUET_EXPANSION = 2.5
COMPRESSED_EXPANSION = 3.0
"""The pages of docs/ in one file: 2.8 as .gz, 3.1 as .xz."""


def text_sizes(experiment: Experiment, graph: StageGraph, store: Store) -> TextSizes:
    """Counted where the stages are in the store, else estimated from the configuration; no text is downloaded."""
    corpus, tokens = graph["corpus"], graph["tokens"]
    in_bytes: Mapping[str, float] | None
    if store.is_done(corpus):
        in_bytes = {split: float(count) for split, count in store.result(corpus)["bytes"].items()}
    else:
        in_bytes = _mixture_bytes(experiment.corpus) if experiment.corpus.mixture else _corpus_bytes(experiment.corpus)
    if store.is_done(tokens):
        counted = {split: float(count) for split, count in store.result(tokens)["tokens"].items()}
        return TextSizes(in_bytes, counted)
    if in_bytes is None:
        return TextSizes(None, None)
    each = _bytes_per_token(experiment.tokens)
    return TextSizes(in_bytes, {split: count / each for split, count in in_bytes.items()})


def _mixture_bytes(corpus: Corpus) -> Mapping[str, float] | None:
    """As many bytes as the shares leave, as if tokens of all sources were of one length."""
    found = [_corpus_bytes(member) for member in corpus.members]
    known = [sizes for sizes in found if sizes is not None]
    if len(known) < len(found):
        return None
    return {
        split: min(sizes[split] / share for sizes, share in zip(known, shares_of(corpus), strict=True))
        for split in known[0]
    }


def _corpus_bytes(corpus: Corpus) -> Mapping[str, float] | None:
    if corpus.source == "stdlib" and corpus.max_documents is None:
        default = Corpus()
        split = (corpus.validation_fraction, corpus.test_fraction)
        if split == (default.validation_fraction, default.test_fraction):
            return STDLIB_BYTES
        return _split(sum(STDLIB_BYTES.values()), corpus)
    if corpus.source == "markov":
        documents = min(corpus.markov.num_documents, corpus.max_documents or corpus.markov.num_documents)
        return _split(float(documents * (corpus.markov.document_length + 1)), corpus)
    # The share of so many documents is known only once the text has been read.
    if corpus.max_documents is not None:
        return None
    if ADDRESS in corpus.source:
        found = _bytes_at(corpus.source)
        return None if found is None else _split(found, corpus)
    path = Path(corpus.source.removeprefix("hf:")).expanduser()
    if not path.exists():
        return None
    files = [path] if path.is_file() else walk_files(path)
    return _split(sum(_text_bytes(file.name, file.stat().st_size) for file in files if kind_of(file) in KINDS), corpus)


@lru_cache(maxsize=64)
def _bytes_at(address: str) -> float | None:
    """Asked once in a process: many trials share a corpus, and every listing is a request."""
    try:
        return sum(_text_bytes(file.name, file.size) for file in find_remote(address).files)
    except CorpusError:
        # The stage itself will say so.
        return None


def _text_bytes(name: str, size: int) -> float:
    factor = {".txt": 1.0, ".jsonl": 0.95, ".json": 0.95, ".csv": 0.95, ".parquet": PARQUET_EXPANSION, ".arrow": 1.0}
    return size * factor[format_of(name)] * (COMPRESSED_EXPANSION if is_compressed(name) else 1.0)


def _split(total: float, corpus: Corpus) -> Mapping[str, float]:
    held_out = {"validation": corpus.validation_fraction * total, "test": corpus.test_fraction * total}
    return {"train": total - sum(held_out.values()), **held_out}


def _bytes_per_token(tokens: Tokens) -> float:
    if tokens.tokenizer == "bytes":
        return 1.0
    size = tokens.vocab_size if tokens.tokenizer == "bpe" else 128_256
    return next((each for most, each in BYTES_PER_TOKEN if size <= most), 4.5)
