"""What a store holds: its stages, who works on them, and which studies need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calm_bench.errors import RunError
from pipelines.common.record_file import RecordError
from pipelines.store.contents import StageFiles
from pipelines.store.refs import StageRef, StudyRef
from pipelines.store.store import Store
from pipelines.store.trial_record import earlier_refs, load_trials, refs_of

StoredState = Literal["done", "running", "unfinished", "abandoned"]
"""``running``: a live process holds it. ``unfinished``: a study that has not ended will go on with it.
``abandoned``: started, and nobody will go on with it, unless a trial that failed or was pruned is tried again."""


class StoreError(RunError, RuntimeError):
    """The store cannot be understood; the message says what to do."""


@dataclass(frozen=True)
class StudyNeeds:
    """What one study in the store consists of, from its ``trials.json``. Stages are named ``kind-identity``."""

    name: str
    folder: Path
    stages: frozenset[str]
    """Stages of all its trials, and of final ones of before that it may have again."""
    to_do: frozenset[str]
    """Stages of its open trials, and of final ones of before: what is started of these will be continued."""
    ended_with: frozenset[str] = frozenset()
    """Stages of its complete trials, all of which were finished once."""

    @property
    def is_finished(self) -> bool:
        return not self.to_do


@dataclass(frozen=True)
class StoredStage:
    """One stage folder, finished or started."""

    kind: str
    identity: str
    label: str
    state: StoredState
    folder: Path | str
    """An address where the store is an object store."""
    size: int
    """Bytes of all its files."""
    modified: float
    """Seconds since the epoch: when it was finished, or last written to."""
    studies: tuple[str, ...]
    """Names of the studies of which a trial needs it."""
    holder: str = ""
    """The live process that works on it."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.identity}"


def studies_in(store: Store) -> list[StudyNeeds]:
    """All studies in the store by folder name.

    Raises:
        StoreError: what a study needs cannot be read.
    """
    found = []
    for folder in store.studies.folders():
        try:
            trials = load_trials(folder)
        except FileNotFoundError:
            # Written before a study's first stage is started: without it there is nothing that it could need.
            continue
        except RecordError as error:
            raise StoreError(f"what the study in {folder} needs is not known: {error}") from error
        to_do, ended_with = (
            _names(refs_of(trial for trial in trials if trial.state == state)) for state in ("open", "complete")
        )
        earlier = _names(earlier_refs(folder))
        needed = _names(refs_of(trials)) | earlier
        found.append(StudyNeeds(StudyRef.of(folder).name, folder, needed, to_do | earlier, ended_with))
    return found


@dataclass(frozen=True)
class MissingStages:
    """Stages that trials of a study have ended with, as its record says, and that are not in the store."""

    study: str
    folder: Path
    """Of the study: its ``study.yaml`` is what makes them again."""
    names: tuple[str, ...]
    """``kind-identity``, sorted."""


def missing_stages(store: Store) -> list[MissingStages]:
    """What complete trials need and the store lacks, by study; trials that failed or are open need not have all.

    Raises:
        StoreError: what a study needs cannot be read.
    """
    there = {found.name for found in store.finished()}
    needs = ((study, tuple(sorted(study.ended_with - there))) for study in studies_in(store))
    return [MissingStages(study.name, study.folder, names) for study, names in needs if names]


def stored_stages(store: Store) -> list[StoredStage]:
    """All stages, finished and started, by kind and label.

    Raises:
        StoreError: what a study needs cannot be read.
    """
    studies = studies_in(store)
    found = [*_finished(store, studies), *_started(store, studies)]
    return sorted(found, key=lambda stage: (stage.kind, stage.label, stage.identity, stage.state))


def _finished(store: Store, studies: list[StudyNeeds]) -> Iterator[StoredStage]:
    for found in store.finished():
        users = tuple(study.name for study in studies if found.name in study.stages)
        yield _stored(found, "done", users)


def _started(store: Store, studies: list[StudyNeeds]) -> Iterator[StoredStage]:
    held = store.leases.held()
    for found in store.started():
        users = tuple(study.name for study in studies if found.name in study.stages)
        lease = held.get(found.name)
        state: StoredState = "abandoned"
        if lease is not None:
            state = "running"
        elif any(found.name in study.to_do for study in studies):
            state = "unfinished"
        yield _stored(found, state, users, "" if lease is None else str(lease.holder))


def _stored(found: StageFiles, state: StoredState, users: tuple[str, ...], holder: str = "") -> StoredStage:
    return StoredStage(
        found.kind, found.identity, found.label, state, found.uri, found.size, found.modified, users, holder
    )


def _names(refs: frozenset[StageRef]) -> frozenset[str]:
    return frozenset(ref.name for ref in refs)
