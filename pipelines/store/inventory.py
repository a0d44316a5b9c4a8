"""What a store holds: its stages, who works on them, and which studies need them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.store.store import Store

StoredState = Literal["done", "running", "unfinished", "abandoned"]
"""``running``: a live process holds it. ``unfinished``: a study that has not ended will go on with it.
``abandoned``: begun, and nobody will go on with it, unless a trial that failed or was pruned is tried again."""


class StoreError(RuntimeError):
    """The store cannot be understood; the message says what to do."""


@dataclass(frozen=True)
class StudyRecord:
    """What one study in the store consists of, from its ``trials.json``. Stages are named ``kind-identity``."""

    name: str
    folder: Path
    stages: frozenset[str]
    """Of all its trials."""
    to_do: frozenset[str]
    """Of its open trials: what is begun of these will be continued."""

    @property
    def is_finished(self) -> bool:
        return not self.to_do


@dataclass(frozen=True)
class StoredStage:
    """One stage folder, finished or begun."""

    kind: str
    identity: str
    label: str
    state: StoredState
    folder: Path
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


def study_records(store: Store) -> list[StudyRecord]:
    """All studies in the store by folder name.

    Raises:
        StoreError: what a study needs cannot be read.
    """
    found = []
    for folder in sorted((store.root / "studies").glob("*")):
        path = folder / "trials.json"
        try:
            trials = json.loads(path.read_text())
            stages = {trial["number"]: _names(trial) for trial in trials}
            open_trials = {trial["number"] for trial in trials if trial["state"] == "open"}
        except (FileNotFoundError, NotADirectoryError):
            # Written before a study's first stage is begun: without it there is nothing that it could need.
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{path} cannot be read ({type(error).__name__}: {error}), so what its study needs is not known: "
                "run the study again, which writes it anew, or remove its folder"
            ) from error
        name = folder.name.rpartition("-")[0]
        to_do = frozenset().union(*(names for number, names in stages.items() if number in open_trials))
        found.append(StudyRecord(name, folder, frozenset().union(*stages.values()), to_do))
    return found


def stored_stages(store: Store) -> list[StoredStage]:
    """All stages, finished and begun, by kind and label.

    Raises:
        StoreError: what a study needs cannot be read.
    """
    studies = study_records(store)
    found = [*_finished(store, studies), *_begun(store, studies)]
    return sorted(found, key=lambda stage: (stage.kind, stage.label, stage.identity, stage.state))


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``; files that vanish meanwhile count nothing."""
    if folder.is_file():
        return folder.stat().st_size
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _finished(store: Store, studies: list[StudyRecord]) -> Iterator[StoredStage]:
    for folder in (store.root / "stages").glob("*/*"):
        if not folder.is_dir():
            continue
        kind, identity = folder.parent.name, folder.name
        users = tuple(study.name for study in studies if f"{kind}-{identity}" in study.stages)
        modified = _modified(folder / "result.json", folder)
        label = str(_description(folder).get("label", kind))
        yield StoredStage(kind, identity, label, "done", folder, size_of(folder), modified, users)


def _begun(store: Store, studies: list[StudyRecord]) -> Iterator[StoredStage]:
    for folder in (store.root / "work").glob("*-*"):
        kind, _, identity = folder.name.rpartition("-")
        users = tuple(study.name for study in studies if folder.name in study.stages)
        holder = store.leases.holder(folder.name)
        state: StoredState = "abandoned"
        if holder is not None:
            state = "running"
        elif any(folder.name in study.to_do for study in studies):
            state = "unfinished"
        modified = _modified(folder / "metrics.jsonl", folder)
        label = str(_description(folder).get("label", kind))
        holder_name = "" if holder is None else str(holder)
        yield StoredStage(kind, identity, label, state, folder, size_of(folder), modified, users, holder_name)


def _names(trial: dict[str, Any]) -> frozenset[str]:
    return frozenset(f"{kind}-{identity}" for kind, identity in trial["stages"].items())


def _description(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _modified(*paths: Path) -> float:
    for path in paths:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            continue
    return 0.0
