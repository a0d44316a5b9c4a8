"""Where a study keeps its files in a store."""

from __future__ import annotations

from pathlib import Path

from pipelines.store.layout import STUDIES
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.study.graph import CorpusIdentity, corpus_identity_of
from pipelines.study.identity import study_identity


def study_folder(study: Study, store: Store, corpus_identity: CorpusIdentity = corpus_identity_of) -> Path:
    """Where the study keeps its journal, its resolved configuration, ``trials.json`` and the leaderboard."""
    return store.root / STUDIES / f"{study.name}-{study_identity(study, corpus_identity)}"
