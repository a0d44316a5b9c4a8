"""What lies in a store's folders, before anybody asks who needs it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.common.record_file import RecordError
from pipelines.store.layout import STAGES, WORK
from pipelines.store.refs import StageRef
from pipelines.study.stage_folder import METRICS_FILE, RESULT_FILE, StageRecord

STOP_FILE_AGE_S = 24 * 3600.0
"""A driver's stop file that is older has lost its driver: workers look at it a few times a second."""


@dataclass(frozen=True)
class StageFiles:
    """The files of one stage, finished or started."""

    kind: str
    identity: str
    label: str
    uri: Path | str
    """A folder, or an address in an object store."""
    size: int
    """Bytes of all its files."""
    modified: float
    """Seconds since the epoch: when it was finished, or last written to."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.identity}"


@dataclass(frozen=True)
class PartialStage:
    """Something that is no stage and that nobody will miss."""

    what: str
    reason: str
    uri: Path | str
    size: int
    """Bytes."""


def finished_in(root: Path) -> Iterator[StageFiles]:
    """The finished stages below ``root``."""
    for folder in (root / STAGES).glob("*/*"):
        if folder.is_dir():
            modified = _modified(folder / RESULT_FILE, folder)
            label = _label(folder, folder.parent.name)
            yield StageFiles(folder.parent.name, folder.name, label, folder, size_of(folder), modified)


def started_in(root: Path) -> Iterator[StageFiles]:
    """The stages below ``root`` that were started and are not finished."""
    for folder in (root / WORK).glob("*-*"):
        ref = StageRef.parse(folder.name)
        modified = _modified(folder / METRICS_FILE, folder)
        yield StageFiles(ref.kind, ref.identity, _label(folder, ref.kind), folder, size_of(folder), modified)


def left_behind_in(root: Path) -> Iterator[PartialStage]:
    """What was quarantined, half removed, or lost its driver."""
    for folder in sorted((root / "damaged").glob("*")):
        yield PartialStage(folder.name, "set aside because it was damaged", folder, size_of(folder))
    for folder in sorted((root / "trash").glob("*")):
        yield PartialStage(folder.name, "half removed", folder, size_of(folder))
    now = time.time()
    for path in sorted((root / "stop").glob("*")):
        if now - path.stat().st_mtime > STOP_FILE_AGE_S:
            yield PartialStage(f"stop/{path.name}", "its driver is gone", path, size_of(path))


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``; files that vanish meanwhile count nothing."""
    if folder.is_file():
        return folder.stat().st_size
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _label(folder: Path, kind: str) -> str:
    """What the stage in ``folder`` is called; its kind where that cannot be read: a list shows what there is."""
    try:
        return StageRecord.load(folder).label or kind
    except (OSError, RecordError):
        return kind


def _modified(*paths: Path) -> float:
    for path in paths:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            continue
    return 0.0
