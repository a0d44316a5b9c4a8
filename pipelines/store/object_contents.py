"""What lies in an object store, before anybody asks who needs it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipelines.store import flags, layout
from pipelines.store.contents import STOP_FILE_AGE_S, PartialStage, StageFiles, size_of
from pipelines.store.lease import LeaseManager
from pipelines.store.manifest import Manifest
from pipelines.store.names import is_plain
from pipelines.store.object_store import Found, ObjectStore
from pipelines.store.published_index import PublishedIndex
from pipelines.store.refs import StageRef
from pipelines.store.study_drivers import STUDY

LEFTOVER_AGE_S = 24 * 3600.0
"""Files on their way for longer have lost the process that moved them."""


def finished(objects: ObjectStore, published: PublishedIndex) -> Iterator[StageFiles]:
    """The stages that have a record."""
    for name, info in published.refresh().items():
        ref, description = StageRef.parse(name), published.description(name)
        label = ref.kind if description is None else description.label
        try:
            size = published.record(name).size
        except FileNotFoundError:
            size = 0
        where = objects.uri(f"stages/{ref.kind}/{ref.identity}")
        yield StageFiles(ref.kind, ref.identity, label, where, size, info.modified)


def started(objects: ObjectStore, leases: LeaseManager) -> Iterator[StageFiles]:
    """The stages of which work was uploaded, or on which somebody works."""
    sizes: dict[str, int] = defaultdict(int)
    times: dict[str, float] = defaultdict(float)
    for key, info in objects.list(layout.WORK).items():
        name = key.split("/")[1].removesuffix(".json")
        if is_plain(name):
            sizes[name] += info.size
            times[name] = max(times[name], info.modified)
    for name in leases.held():
        if not name.startswith(STUDY) and name not in sizes:
            sizes[name], times[name] = 0, time.time()
    for name in sizes:
        ref, where = StageRef.parse(name), objects.uri(f"{layout.WORK}/{name}")
        yield StageFiles(ref.kind, ref.identity, ref.kind, where, sizes[name], times[name])


def left_behind(objects: ObjectStore, published: PublishedIndex, leases: LeaseManager) -> Iterator[PartialStage]:
    """What was quarantined, uploaded in part, or lost its driver."""
    by_upload: dict[str, dict[str, Found]] = defaultdict(dict)
    for key, info in objects.list(layout.STAGES).items():
        by_upload["/".join(key.split("/")[:4])][key] = info
    # Asked afterwards, in this order: who uploads holds a lease until there is a record.
    busy = leases.held()
    names = published.refresh()
    for prefix, found in sorted(by_upload.items()):
        parts = prefix.split("/")
        name = "-".join(parts[1:3])
        if name in busy or (name in names and _uses(published, name, parts[-1])):
            continue
        size = sum(info.size for info in found.values())
        yield PartialStage(prefix, "uploaded in part, or set aside because it was damaged", objects.uri(prefix), size)
    now = time.time()
    for key, info in objects.list("damaged").items():
        yield PartialStage(key, "record of a stage that was damaged", objects.uri(key), info.size)
    for key, info in objects.list(flags.FOLDER).items():
        if now - info.modified > STOP_FILE_AGE_S:
            yield PartialStage(key, "its driver is gone", objects.uri(key), info.size)
    for dead in leases.sweep(delete=False):
        yield PartialStage(dead.name, "its holder is gone", dead.uri, dead.size)


def left_in_cache(root: Path, published: PublishedIndex) -> Iterator[PartialStage]:
    """On this machine: copies of what the object store no longer has, and files that never arrived."""
    names = published.refresh()
    for folder in sorted((root / layout.STAGES).glob("*/*")):
        if f"{folder.parent.name}-{folder.name}" not in names:
            what = f"stages/{folder.parent.name}/{folder.name} (on this machine)"
            yield PartialStage(what, "a copy of what the store no longer has", folder, size_of(folder))
    for moving in ("incoming", "outgoing"):
        for folder in sorted((root / moving).glob("*")):
            if time.time() - folder.stat().st_mtime > LEFTOVER_AGE_S:
                yield PartialStage(f"{moving}/{folder.name} (on this machine)", "half moved", folder, size_of(folder))


def records_of(key: str) -> list[str]:
    """The records without which what is at ``key`` is not there."""
    match key.split("/"):
        case [layout.STAGES, kind, identity]:
            return [PublishedIndex.key(f"{kind}-{identity}")]
        case [layout.WORK, name]:
            return [f"{layout.WORK}/{name}.json"]
    return []


def _uses(published: PublishedIndex, name: str, upload: str) -> bool:
    """Whether a record refers to objects of an upload; what cannot be read is left alone."""
    try:
        found: Manifest = published.record(name)
    except FileNotFoundError:
        return True
    return any(piece.object.partition("/")[0] == upload for piece in found.files.values())
