"""What nobody needs of a store, and its removal.

Nothing is removed that a live process holds, and no finished or begun stage that a study in the store still needs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.store.inventory import StoredStage, size_of, stored_stages
from pipelines.store.store import Store

STOP_FILE_AGE_S = 24 * 3600.0
"""A driver's stop file that is older has lost its driver: workers look at it a few times a second."""


@dataclass(frozen=True)
class Waste:
    """Something that can go."""

    what: str
    reason: str
    folder: Path
    size: int
    """Bytes."""
    stage: StoredStage | None = None


def find_waste(store: Store) -> list[Waste]:
    """All that no study in the store needs and no live process works on.

    Raises:
        StoreError: what a study needs cannot be read, so nothing can be said to be needless.
    """
    found = [_of_stage(stage) for stage in stored_stages(store) if _is_needless(stage)]
    return [*found, *_left_behind(store)]


def remove(store: Store, waste: list[Waste]) -> list[Waste]:
    """Remove ``waste``; returns what was removed. What a process has taken up meanwhile stays."""
    removed = []
    for item in waste:
        if item.stage is None:
            _delete(store, item.folder)
            removed.append(item)
            continue
        lease = store.leases.acquire(item.stage.name)
        if lease is None:
            continue
        with lease:
            _delete(store, item.folder)
        removed.append(item)
    store.leases.sweep()
    return removed


def _is_needless(stage: StoredStage) -> bool:
    return stage.state == "abandoned" or (stage.state == "done" and not stage.studies)


def _of_stage(stage: StoredStage) -> Waste:
    reason = "no study in the store uses it"
    if stage.state == "abandoned" and stage.studies:
        reason = f"begun for a trial of {', '.join(stage.studies)} that has ended"
    return Waste(f"{stage.label} ({stage.kind} {stage.identity})", reason, stage.folder, stage.size, stage)


def _left_behind(store: Store) -> Iterator[Waste]:
    for folder in sorted((store.root / "damaged").glob("*")):
        yield Waste(folder.name, "set aside because it was damaged", folder, size_of(folder))
    for folder in sorted((store.root / "trash").glob("*")):
        yield Waste(folder.name, "half removed", folder, size_of(folder))
    now = time.time()
    for path in sorted((store.root / "stop").glob("*")):
        if now - path.stat().st_mtime > STOP_FILE_AGE_S:
            yield Waste(f"stop/{path.name}", "its driver is gone", path, size_of(path))
    for path in store.leases.sweep(delete=False):
        yield Waste(f"leases/{path.name}", "its holder is gone", path, size_of(path))


def _delete(store: Store, path: Path) -> None:
    """Rename first, so that nobody ever sees a stage of which half is gone."""
    trash = store.root / "trash"
    trash.mkdir(parents=True, exist_ok=True)
    gone = path if path.parent == trash else trash / f"{path.name}-{time.time_ns():x}"
    try:
        if gone != path:
            path.rename(gone)
    except FileNotFoundError:
        return
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    _remove_if_empty(trash)
    _remove_if_empty(store.root / "damaged")


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
