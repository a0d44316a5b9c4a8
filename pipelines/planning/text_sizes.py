"""How much text a study reads, as far as its description tells, and what reading and tokenizing it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calm_bench.config import Corpus, Experiment, Tokens
from pipelines.store.store import Store
from pipelines.study.stage import StageGraph

STDLIB_BYTES = {"train": 1.68e6, "validation": 1.76e5, "test": 3.87e5}
"""Of ``corpus.source=stdlib`` with its default split on Python 3.11; a release more or less changes it by a few %."""
STDLIB_SECONDS = 4.7
READ_BYTES_PER_SECOND = {"markov": 2.5e6, "local": 3.0e7}
"""Text of a corpus written per second: measured on one core, ``calm-bench``'s own readers."""
TOKENIZED_BYTES_PER_SECOND = {"bytes": 1.0e7, "bpe": 9.0e5, "hugging face": 1.0e6}
"""The same of tokens; ``bpe`` is trained first. The rate of other tokenizers is assumed."""
BYTES_PER_TOKEN = ((1024, 2.0), (8192, 3.5), (65536, 4.2))
"""English text by a vocabulary of at most so many words; larger ones 4.5."""
PARQUET_EXPANSION = 2.5


@dataclass(frozen=True)
class TextSizes:
    """Bytes and tokens by split; None where only reading the corpus would tell."""

    bytes_by_split: Mapping[str, float] | None
    tokens_by_split: Mapping[str, float] | None

    @property
    def num_bytes(self) -> float | None:
        return None if self.bytes_by_split is None else sum(self.bytes_by_split.values())

    @property
    def num_tokens(self) -> float | None:
        return None if self.tokens_by_split is None else sum(self.tokens_by_split.values())

    def tokens_of(self, split: str) -> float | None:
        return None if self.tokens_by_split is None else self.tokens_by_split.get(split, 0.0)


def text_sizes(experiment: Experiment, graph: StageGraph, store: Store) -> TextSizes:
    """Counted where the stages are in the store, else estimated from the configuration; downloads nothing."""
    corpus, tokens = graph["corpus"], graph["tokens"]
    in_bytes: Mapping[str, float] | None
    if store.is_done(corpus):
        in_bytes = {split: float(count) for split, count in store.result(corpus)["bytes"].items()}
    else:
        in_bytes = _corpus_bytes(experiment.corpus)
    if store.is_done(tokens):
        counted = {split: float(count) for split, count in store.result(tokens)["tokens"].items()}
        return TextSizes(in_bytes, counted)
    if in_bytes is None:
        return TextSizes(None, None)
    each = _bytes_per_token(experiment.tokens)
    return TextSizes(in_bytes, {split: count / each for split, count in in_bytes.items()})


def corpus_seconds(corpus: Corpus, sizes: TextSizes) -> float | None:
    """Seconds of the stage ``corpus``; None where its size is not known."""
    if corpus.source == "stdlib":
        return STDLIB_SECONDS
    rate = READ_BYTES_PER_SECOND["markov" if corpus.source == "markov" else "local"]
    return None if sizes.num_bytes is None else 0.1 + sizes.num_bytes / rate


def tokens_seconds(tokens: Tokens, sizes: TextSizes) -> float | None:
    """Seconds of the stage ``tokens``; None where the size of the corpus is not known."""
    kind = tokens.tokenizer if tokens.tokenizer in ("bytes", "bpe") else "hugging face"
    return None if sizes.num_bytes is None else 0.1 + sizes.num_bytes / TOKENIZED_BYTES_PER_SECOND[kind]


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
    path = Path(corpus.source.removeprefix("hf:")).expanduser()
    # What of it so many documents are, nobody knows before reading it.
    if corpus.max_documents is not None or not path.exists():
        return None
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return _split(sum(_text_bytes(file) for file in files), corpus)


def _text_bytes(file: Path) -> float:
    factor = {".txt": 1.0, ".jsonl": 0.95, ".json": 0.95, ".parquet": PARQUET_EXPANSION, ".arrow": 1.0}
    return file.stat().st_size * factor.get(file.suffix, 0.0)


def _split(total: float, corpus: Corpus) -> Mapping[str, float]:
    held_out = {"validation": corpus.validation_fraction * total, "test": corpus.test_fraction * total}
    return {"train": total - sum(held_out.values()), **held_out}


def _bytes_per_token(tokens: Tokens) -> float:
    if tokens.tokenizer == "bytes":
        return 1.0
    size = tokens.vocab_size if tokens.tokenizer == "bpe" else 128_256
    return next((each for most, each in BYTES_PER_TOKEN if size <= most), 4.5)
