"""Leases: at most one process works on a thing, and a dead one does not keep it.

A lease is a file that its holder touches every few seconds. It is free for the taking when the holder's process is
known to be gone (same host) or has not touched it for ``expiry_s``. Ages are measured against the clock of the file
system that holds the leases, so hosts need not agree on the time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from calm_bench.kept_folders import make_folder, place_now
from pipelines.store.file_lock import locked
from pipelines.store.holder import Holder, this_process
from pipelines.store.lease import DeadLease, HeldLease, LeaseManager

EXPIRY_S = 60.0
HEARTBEAT_S = 5.0


class FileGrant:
    """A lease file of this process."""

    def __init__(self, path: Path, holder: Holder, guard: Path) -> None:
        self._path = path
        self._holder = holder
        self._guard = guard

    def renew(self) -> bool:
        """Touch the file; False where another process has replaced it."""
        if _read(self._path) != self._holder:
            return False
        os.utime(self._path)
        return True

    def withdraw(self) -> None:
        """Remove the file, unless it is another process's by now; from where it went if its store was moved.

        There a process that lives on, as a notebook's, would keep everybody waiting until the lease expires.
        """
        path = place_now(self._path)
        with locked(place_now(self._guard)):
            if _read(path) == self._holder:
                path.unlink()


class FolderLeases:
    """The leases in one folder, on a local or shared file system."""

    def __init__(self, folder: Path, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.expiry_s = expiry_s
        self.heartbeat_s = heartbeat_s
        self._folder = folder
        self._guard = folder / ".guard"

    def grant(self, name: str) -> FileGrant | None:
        """The lease ``name`` for this process, or None while another live process holds it."""
        make_folder(self._folder)
        path = self._folder / f"{name}.json"
        holder = this_process()
        with locked(self._guard):
            if self._live_holder(path) is not None:
                return None
            temporary = self._folder / f".{name}.{holder.token}"
            temporary.write_text(json.dumps(asdict(holder)))
            temporary.replace(path)
        return FileGrant(path, holder, self._guard)

    def holder(self, name: str) -> Holder | None:
        """The live process that holds the lease ``name``, if any."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            return None
        with self._reading():
            return self._live_holder(path)

    def held(self) -> dict[str, HeldLease]:
        """All leases that live processes hold, by name; a file does not tell since when, only when last renewed."""
        paths = sorted(self._folder.glob("*.json"))
        found = {}
        for path in paths:
            with self._reading():
                holder = self._live_holder(path)
            if holder is not None:
                with suppress(FileNotFoundError):
                    found[path.stem] = HeldLease(holder, path.stat().st_mtime)
        return found

    def sweep(self, delete: bool, prefix: str = "") -> list[DeadLease]:
        """Files that dead processes left: leases that nobody holds any more, and half-written ones."""
        if not self._folder.is_dir():
            return []
        with locked(self._guard) if delete else self._reading():
            # Half-written ones exist under the guard only, so whatever is seen here has lost its writer.
            dead = [
                path
                for path in sorted(self._folder.iterdir())
                if path.name.startswith(prefix)
                if path != self._guard and (path.suffix != ".json" or self._live_holder(path) is None)
            ]
            found = [DeadLease(f"{self._folder.name}/{path.name}", path, path.stat().st_size) for path in dead]
            for path in dead if delete else ():
                path.unlink()
        return found

    def _live_holder(self, path: Path) -> Holder | None:
        holder = _read(path)
        if holder is None or holder.is_gone():
            return None
        try:
            age = self._now() - path.stat().st_mtime
        except FileNotFoundError:
            return None
        return holder if age < self.expiry_s else None

    def _now(self) -> float:
        """The time of the file system; of one that may only be read, this host's."""
        try:
            os.utime(self._guard)
        except OSError:
            return time.time()
        return self._guard.stat().st_mtime

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Hold the lock, so that nothing changes meanwhile; in a store that may only be read there is none to hold."""
        with ExitStack() as stack:
            with suppress(OSError):
                stack.enter_context(locked(self._guard))
            yield


def leases_in(folder: Path, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> LeaseManager:
    """The leases that are kept in ``folder``."""
    return LeaseManager(FolderLeases(folder, expiry_s, heartbeat_s))


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
