"""The text that a model is scored on: corpus and tokens in the store, made where they are missing or damaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from calm_bench.corpora import SPLITS
from calm_bench.corpora.base import CorpusError
from calm_bench.tokens.tokenizer import TokensError
from pipelines.execution.run_stage import quarantine_damaged, run_stage
from pipelines.store.store import Store
from pipelines.study.stage import StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS

Found = TypeVar("Found")
TEXT = ("corpus", "tokens")
"""Kinds of the stages that make it, in order."""


def make_text(graph: StageGraph, store: Store) -> None:
    """Run the stages of ``graph`` that make the text, where ``store`` lacks them.

    Raises:
        StageError: one of them failed.
    """
    for kind in TEXT:
        run_stage(store, graph[kind], STAGE_KINDS.get(kind), StageContext())


def read_text(kind: str, graph: StageGraph, store: Store, read: Callable[[Path], Found]) -> Found:
    """What ``read`` finds in the folder of the stage of ``kind``; what is damaged is made anew first.

    The folder of an object store's stage lacks its text: those files are brought that ``read`` reads, and stay.

    Raises:
        TokensError, CorpusError: the files are those that were published, and cannot be read.
        StageError: one of the stages cannot be made anew.
    """
    try:
        return read(text_folder(kind, graph, store))
    except (TokensError, CorpusError):
        damaged = quarantine_damaged([graph[each] for each in TEXT], store)
        if not damaged:
            raise
        warnings.warn(f"{'. '.join(damaged)}. It is made anew", stacklevel=2)
        make_text(graph, store)
        return read(text_folder(kind, graph, store))


def text_folder(kind: str, graph: StageGraph, store: Store) -> Path:
    """The folder of the stage of ``kind``, whose text may be kept elsewhere."""
    return store.fetch_without(graph[kind], SPLITS)
