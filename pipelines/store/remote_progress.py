"""How a running study gets on, told through an object store to those who watch from another host. There are

    studies/<study>/progress/<driver>.json   a driver's own account (:mod:`pipelines.store.progress_sender`)
    leases/<stage>/<time>-<token>.json       who works on which stage, and since when
    work/<stage>.json, .../metrics.jsonl     how far it had come when its checkpoints were last uploaded

Listings cost money, so whoever watches makes three of them every :data:`POLL_S` seconds, and reads only what is new.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_bytes
from calm_bench.kept_folders import make_folder
from pipelines.common.record_file import RecordError
from pipelines.store import checkpoint_upload, study_copies
from pipelines.store.layout import PROGRESS, STUDIES, WORK
from pipelines.store.lease import HeldLease, LeaseManager
from pipelines.store.manifest import Manifest
from pipelines.store.names import is_plain, stays_inside
from pipelines.store.object_store import Found, ObjectStore
from pipelines.store.progress_sender import has_ended
from pipelines.store.study_copies import StudyCopies
from pipelines.study.stage_folder import CONFIG_FILE, METRICS_FILE, StageRecord

POLL_S = 15.0
_TAIL = 2**16
"""Bytes from the end of a log of metrics: it may be long, and only its last lines tell where a training is."""


@dataclass(frozen=True)
class UnderWay:
    """A stage on which a live process works."""

    host: str
    since: float
    """When it was taken up, in seconds since the epoch, by that host's clock."""
    label: str = ""
    line: Mapping[str, Any] | None = None
    """The last line of its training's metrics that was uploaded."""
    as_of: float | None = None
    """When that was."""


class RemoteProgress:
    """What the object store tells of running studies, for one who watches. Nothing is written there, but for the object
    by which leases learn the store's time."""

    def __init__(self, objects: ObjectStore, root: Path, leases: LeaseManager, studies: StudyCopies) -> None:
        self._objects = objects
        self._studies = studies
        self._folder = root / STUDIES
        self._leases = leases
        self._seen: dict[str, Found] = {}
        self._work: dict[str, tuple[Found, str, Mapping[str, Any] | None]] = {}
        self.held: dict[str, HeldLease] = {}
        """All leases of the object store, as they were at the last :meth:`poll`."""

    def poll(self, study: str | None = None) -> None:
        """Bring what is new of ``study``, or of all studies, to this machine; two listings.

        Files keep the time at which they were written to the object store: silence must not look like news.

        Raises:
            StoreUnreachable: the object store does not answer.
        """
        self.held = self._leases.held()
        own = self._studies.driven()
        prefix = STUDIES if study is None else f"{STUDIES}/{study}"
        wanted, told = {}, set[Path]()
        for key, info in self._objects.list(prefix).items():
            path = self._wanted(key, own)
            if path is not None and path.parent.name == PROGRESS:
                told.add(path)
            if path is None or (self._seen.get(key) == info and path.is_file()):
                continue
            wanted[key] = info
        for key, content in self._objects.read_many([*wanted]).items():
            path = self._folder / key.removeprefix(f"{STUDIES}/")
            self._seen[key] = wanted[key]
            if path.parent.name == PROGRESS and _is_newer(path, content):
                continue
            make_folder(path.parent)
            write_bytes(path, content)
            os.utime(path, (wanted[key].modified, wanted[key].modified))
        for folder in {path.parent for path in told}:
            # The next driver has deleted what it found of those that had ended; one on this host may not have sent yet.
            for path in set(folder.glob("*.json")) - told:
                with suppress(FileNotFoundError):
                    if has_ended(path.read_bytes()):
                        path.unlink()

    def under_way(self, names: Container[str]) -> dict[str, UnderWay]:
        """Those of the stages ``names`` on which somebody worked at the last :meth:`poll`; one listing at most.

        Raises:
            StoreUnreachable: the object store does not answer.
        """
        held = {name: one for name, one in self.held.items() if name in names}
        saved = self._objects.list(WORK) if held else {}
        found = {}
        for name, one in held.items():
            host, info = one.holder.host.partition(" ")[0], saved.get(f"{WORK}/{name}.json")
            if info is None:
                found[name] = UnderWay(host, one.since)
                continue
            if name not in self._work or self._work[name][0] != info:
                self._work[name] = (info, *self._read_work(name))
            _, label, line = self._work[name]
            found[name] = UnderWay(host, one.since, label, line, info.modified)
        return found

    def _wanted(self, key: str, own: Container[str]) -> Path | None:
        """Where the object ``key`` belongs here; None for what nobody watches, and for what a driver here writes."""
        match key.split("/"):
            case [_, name, file] if is_plain(name) and file in study_copies.READ and name not in own:
                return self._folder / name / file
            case [_, name, parent, file] if is_plain(name) and parent == PROGRESS and stays_inside(file):
                return self._folder / name / parent / file if file.endswith(".json") else None
        return None

    def _read_work(self, name: str) -> tuple[str, Mapping[str, Any] | None]:
        """Label and last line of metrics of what was uploaded of the stage ``name``."""
        found: Manifest | None = checkpoint_upload.saved_work(self._objects, name)
        if found is None:
            return "", None
        label, line = "", None
        with suppress(FileNotFoundError, RecordError):
            if (piece := found.files.get(CONFIG_FILE)) is not None:
                key = f"{WORK}/{name}/{piece.object}"
                label = StageRecord.parse(self._objects.read(key), key).label
        with suppress(FileNotFoundError):
            if (piece := found.files.get(METRICS_FILE)) is not None:
                key = f"{WORK}/{name}/{piece.object}"
                line = _last_line(self._objects.read(key, max(0, piece.bytes - _TAIL)))
        return label, line


def _is_newer(path: Path, content: bytes) -> bool:
    """Whether the account at ``path`` is of a driver on this host that has written it since it last sent ``content``.

    By the clock of the driver, which dates both: that of the object store is another one.
    """
    with suppress(OSError):
        return _written(path.read_bytes()) > _written(content)
    return False


def _written(content: bytes) -> float:
    try:
        return float(json.loads(content)["written"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _last_line(content: bytes) -> Mapping[str, Any] | None:
    """The last line that tells a training's loss; of a half line at either end nothing is taken."""
    for text in reversed(content.splitlines()):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int) and line.get("split", "train") == "train":
            return line
    return None
