"""How a running study gets on, told through an object store to those who watch from another host. There are

    studies/<study>/progress/<driver>.json   a driver's own account, sent every :data:`SEND_S` seconds
    leases/<stage>/<time>-<token>.json       who works on which stage, and since when
    work/<stage>.json, .../metrics.jsonl     how far it had come when its checkpoints were last uploaded

Listings cost money, so whoever watches makes three of them every :data:`LOOK_S` seconds, and reads only what is new.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_bytes
from pipelines.common.at_end import at_end
from pipelines.common.record_file import RecordError
from pipelines.store import checkpoint_upload, remote_studies
from pipelines.store.holder import this_process
from pipelines.store.lease import HeldLease, LeaseManager
from pipelines.store.manifest import Manifest
from pipelines.store.names import PROGRESS, is_plain, stays_inside
from pipelines.store.object_store import Found, ObjectStore
from pipelines.store.remote_studies import RemoteStudies
from pipelines.study.stage_folder import CONFIG_FILE, METRICS_FILE, StageRecord

SEND_S = 20.0
LOOK_S = 15.0
LAST_WORD_S = 2.0
"""The end of a process waits no longer for it."""
OLD_S = 24 * 3600.0
"""Accounts of drivers that are gone are kept for so long."""
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


class Sender:
    """Sends what this process records of one study, in a thread of its own, until the record says that it has ended.

    Never raises: nobody may be disturbed for those who watch.
    """

    def __init__(self, home: ObjectStore, folder: Path, every_s: float) -> None:
        self._home = home
        self._folder = folder
        self._every_s = every_s
        self._sent: dict[str, tuple[int, int]] = {}
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"progress of {folder.name}", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """The study is left: what is recorded now is the end of it, if anything is recorded at all."""
        self._leaving.set()
        # A process that was stopped may end sooner than its last word is sent.
        at_end(functools.partial(self._thread.join, LAST_WORD_S))

    def _work(self) -> None:
        next_send, swept = 0.0, False
        while True:
            leaving = self._leaving.wait(min(1.0, self._every_s))
            if not leaving and time.monotonic() < next_send:
                continue
            records = self._own()
            # Its last word comes a little later than the end of the study, and must not be missed.
            over = leaving and not any(record["state"] == "at work" for record in records.values())
            if records and (over or time.monotonic() >= next_send):
                with suppress(OSError):
                    self._send(records)
                    if not swept:
                        self._sweep()
                        swept = True
                next_send = time.monotonic() + self._every_s
            if over:
                return
            if leaving:
                time.sleep(min(0.2, self._every_s))

    def _own(self) -> dict[Path, dict[str, Any]]:
        """The records of this process."""
        me, found = this_process(), {}
        for path in (self._folder / PROGRESS).glob("*.json"):
            try:
                record = json.loads(path.read_bytes())
                driver = record["driver"]
                if (driver["host"], driver["pid"]) == (me.host, me.pid) and not path.name.startswith("."):
                    found[path] = record
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def _send(self, records: Iterable[Path]) -> None:
        for path in records:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if self._sent.get(path.name) != stamp:
                # Also where it was only touched: that is the sign of life.
                self._home.write(f"{self._prefix}/{path.name}", path.read_bytes())
                self._sent[path.name] = stamp

    def _sweep(self) -> None:
        found = self._home.list(self._prefix)
        newest = max((info.modified for info in found.values()), default=0.0)
        self._home.delete(key for key, info in found.items() if newest - info.modified > OLD_S)

    @property
    def _prefix(self) -> str:
        return f"{remote_studies.FOLDER}/{self._folder.name}/{PROGRESS}"


class RemoteProgress:
    """What the home tells of running studies, for one who watches. Nothing is written there."""

    def __init__(self, home: ObjectStore, root: Path, leases: LeaseManager, studies: RemoteStudies) -> None:
        self._home = home
        self._studies = studies
        self._folder = root / remote_studies.FOLDER
        self._leases = leases
        self._seen: dict[str, Found] = {}
        self._work: dict[str, tuple[Found, str, Mapping[str, Any] | None]] = {}
        self.held: dict[str, HeldLease] = {}
        """All leases of the home, as they were at the last :meth:`look`."""

    def look(self, study: str | None = None) -> None:
        """Bring what is new of ``study``, or of all studies, to this machine; two listings.

        Files keep the time at which they were written to the home: silence must not look like news.

        Raises:
            StoreUnreachable: the home does not answer.
        """
        self.held = self._leases.held()
        own = self._studies.driven()
        prefix = remote_studies.FOLDER if study is None else f"{remote_studies.FOLDER}/{study}"
        wanted = {}
        for key, info in self._home.list(prefix).items():
            path = self._wanted(key, own)
            if path is None or _is_newer(path, info) or (self._seen.get(key) == info and path.is_file()):
                continue
            wanted[key] = info
        for key, content in self._home.read_many([*wanted]).items():
            path = self._folder / key.removeprefix(f"{remote_studies.FOLDER}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
            os.utime(path, (wanted[key].modified, wanted[key].modified))
            self._seen[key] = wanted[key]

    def under_way(self, names: Container[str]) -> dict[str, UnderWay]:
        """Those of the stages ``names`` on which somebody worked at the last :meth:`look`; one listing at most.

        Raises:
            StoreUnreachable: the home does not answer.
        """
        held = {name: one for name, one in self.held.items() if name in names}
        saved = self._home.list(checkpoint_upload.FOLDER) if held else {}
        found = {}
        for name, one in held.items():
            host, info = one.holder.host.partition(" ")[0], saved.get(f"{checkpoint_upload.FOLDER}/{name}.json")
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
            case [_, name, file] if is_plain(name) and file in remote_studies.READ and name not in own:
                return self._folder / name / file
            case [_, name, place, file] if is_plain(name) and place == PROGRESS and stays_inside(file):
                return self._folder / name / place / file if file.endswith(".json") else None
        return None

    def _read_work(self, name: str) -> tuple[str, Mapping[str, Any] | None]:
        """Label and last line of metrics of what was uploaded of the stage ``name``."""
        found: Manifest | None = checkpoint_upload.saved_work(self._home, name)
        if found is None:
            return "", None
        label, line = "", None
        with suppress(FileNotFoundError, RecordError):
            if (piece := found.files.get(CONFIG_FILE)) is not None:
                key = f"{checkpoint_upload.FOLDER}/{name}/{piece.object}"
                label = StageRecord.parse(self._home.read(key), key).label
        with suppress(FileNotFoundError):
            if (piece := found.files.get(METRICS_FILE)) is not None:
                key = f"{checkpoint_upload.FOLDER}/{name}/{piece.object}"
                line = _last_line(self._home.read(key, max(0, piece.bytes - _TAIL)))
        return label, line


def _is_newer(path: Path, info: Found) -> bool:
    """Whether the file at ``path`` is one that a driver on this host has written since it was last sent."""
    try:
        return path.parent.name == PROGRESS and path.stat().st_mtime > info.modified
    except FileNotFoundError:
        return False


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
