"""The text that the tasks are made of: test documents, split off as training splits them off."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from calm_bench.config import Corpus
from calm_bench.corpora import read_documents, write_corpus
from calm_bench.seeding import derive

if TYPE_CHECKING:
    from datasets import DatasetDict

SPLIT: Literal["test"] = "test"


def held_out_documents(corpus: Corpus, folder: str | None = None) -> tuple[str, ...]:
    """The documents of the test split, in order.

    Args:
        corpus: its settings; a model that was trained with other split settings may have seen these texts.
        folder: where the corpus has been written already; unset, it is written anew, which takes seconds.

    Raises:
        CorpusError: the corpus cannot be read.
    """
    return _read(folder) if folder is not None else _write(corpus)


def corpus_of(source: str, settings: Mapping[str, Any] | None) -> Corpus:
    """The corpus ``source`` with the settings of ``settings``, if these are of the same source."""
    if settings is not None and settings.get("source") == source:
        return Corpus.model_validate(dict(settings))
    return Corpus(source=source)


def random_source(seed: int, task: str) -> random.Random:
    """The random choices of ``task``; only ``random()`` is used, which is the same in every Python."""
    return random.Random(derive(seed, "task", task))


def drawn(random_numbers: random.Random, count: int) -> int:
    """A number in [0, count)."""
    return int(random_numbers.random() * count)


def as_data_set(documents: Sequence[Mapping[str, Any]]) -> DatasetDict:
    """What lm-eval takes for a data set."""
    from datasets import Dataset, DatasetDict

    return DatasetDict({SPLIT: Dataset.from_list([dict(document) for document in documents])})


@lru_cache(maxsize=4)
def _read(folder: str) -> tuple[str, ...]:
    return tuple(read_documents(Path(folder), SPLIT))


@lru_cache(maxsize=4)
def _write(corpus: Corpus) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(corpus, Path(folder))
        return tuple(read_documents(Path(folder), SPLIT))
