"""The identity of a corpus whose source is gone, and of which the store holds what was made of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError
from pipelines.store.layout import stage_folder
from pipelines.store.store import Store
from pipelines.study.graph import CorpusIdentity, corpus_identity_of
from pipelines.study.stage_folder import RESULT_FILE

Notify = Callable[[str], None]


def corpus_identity_in(store: Store, notify: Notify = lambda text: None) -> CorpusIdentity:
    """As :func:`pipelines.study.graph.corpus_identity_of`, asked once for each corpus.

    A corpus in files is known by their content. Where the files are gone, the finished corpus that ``store`` made from
    the same settings stands for them, the last one if there are several; ``notify`` is told so.
    """

    def identity(corpus: Corpus) -> dict[str, Any]:
        try:
            return corpus_identity_of(corpus)
        except CorpusError:
            found = None if Path(corpus.source).expanduser().exists() else _made_from(corpus, store)
            if found is None:
                raise
            notify(f"corpus.source={corpus.source} is gone: the corpus that the store made of it is used")
            return found

    return functools.cache(identity)


def _made_from(corpus: Corpus, store: Store) -> dict[str, Any] | None:
    # Where it was found, a store keeps its absolute path.
    absolute = str(Path(corpus.source).expanduser().absolute())
    settings = [corpus.model_dump(mode="json") | {"source": source} for source in (corpus.source, absolute)]
    found = [
        (_finished_at(store, record.identity), record.identity, dict(record.config))
        for record in store.records("corpus")
        if record.settings.get("corpus") in settings
    ]
    return max(found, key=lambda one: one[:2])[2] if found else None


def _finished_at(store: Store, identity: str) -> float:
    try:
        return (stage_folder(store.root, "corpus", identity) / RESULT_FILE).stat().st_mtime
    except OSError:
        # In an object store, nothing but the identity orders them.
        return 0.0
