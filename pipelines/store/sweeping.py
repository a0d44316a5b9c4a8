"""What nobody needs of a store, and its removal.

Nothing is removed that a live process holds, and no finished or started stage that a study in the store still needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.store.inventory import StoredStage, stored_stages
from pipelines.store.store import Store


@dataclass(frozen=True)
class Waste:
    """Something that can go."""

    what: str
    reason: str
    folder: Path | str
    """An address where the store is an object store."""
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
            store.discard(item.folder)
            removed.append(item)
            continue
        lease = store.leases.acquire(item.stage.name)
        if lease is None:
            continue
        with lease:
            store.discard(item.folder)
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
    for found in store.left_behind():
        yield Waste(found.what, found.reason, found.uri, found.size)
