"""Leases: at most one process works on a thing, and a dead one does not keep it.

A lease is a file that its holder touches every few seconds. It is free for the taking when the holder's process is
known to be gone (same host) or has not touched it for ``expiry_s``. Ages are measured against the clock of the file
system that holds the leases, so hosts need not agree on the time.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

EXPIRY_S = 60.0
HEARTBEAT_S = 5.0


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    host: str
    pid: int
    started: float
    """Start time of the process, since process numbers are used again."""
    token: str
    """Unique to this lease."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}"

    def is_gone(self) -> bool:
        """Whether the process is known not to exist; always False for one on another host."""
        import psutil

        if self.host != _host():
            return False
        try:
            process = psutil.Process(self.pid)
            # Two readings of one start time differ by rounding only.
            return bool(abs(process.create_time() - self.started) > 1.0 or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


class Tenure(Protocol):
    """A lease while it is held, whatever keeps it; a context manager that releases."""

    @property
    def lost(self) -> bool:
        """Whether somebody else has it by now."""

    def release(self) -> None:
        """Give it back."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LeaseBook(Protocol):
    """Where leases are kept."""

    def acquire(self, name: str) -> Tenure | None:
        """The lease ``name``, or None while another live process holds it."""

    def holder(self, name: str) -> Holder | None:
        """The live process that holds it, if any."""


class Lease:
    """Held from :meth:`Leases.acquire` until :meth:`release`; a context manager that releases."""

    def __init__(self, path: Path, holder: Holder, guard: Path, heartbeat_s: float) -> None:
        self._path = path
        self._holder = holder
        self._guard = guard
        self._heartbeat_s = heartbeat_s
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name=f"lease {path.stem}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """True once somebody else has taken the lease over, which means that this process slept past its expiry."""
        return self._lost

    def release(self) -> None:
        """Stop the heartbeat and give the lease back, unless somebody else has it by now."""
        self._ended.set()
        self._thread.join()
        with locked(self._guard):
            if _read(self._path) == self._holder:
                self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat_s):
            # A file server away for a moment is not a lost lease; only another holder is.
            with suppress(OSError):
                if _read(self._path) != self._holder:
                    self._lost = True
                    return
                os.utime(self._path)


class Leases:
    """The leases in one folder."""

    def __init__(self, folder: Path, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        if heartbeat_s * 2 >= expiry_s:
            raise ValueError(f"a heartbeat every {heartbeat_s} s cannot keep a lease that expires after {expiry_s} s")
        self._folder = folder
        self._expiry_s = expiry_s
        self._heartbeat_s = heartbeat_s
        self._guard = folder / ".guard"

    def acquire(self, name: str) -> Lease | None:
        """The lease ``name``, or None while another live process holds it; never waits for it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.json"
        holder = this_process()
        with locked(self._guard):
            if self._live_holder(path) is not None:
                return None
            temporary = self._folder / f".{name}.{holder.token}"
            temporary.write_text(json.dumps(asdict(holder)))
            temporary.replace(path)
        return Lease(path, holder, self._guard, self._heartbeat_s)

    def holder(self, name: str) -> Holder | None:
        """The live process that holds the lease ``name``, if any."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            return None
        with locked(self._guard):
            return self._live_holder(path)

    def sweep(self, delete: bool = True) -> list[Path]:
        """Files that dead processes left: leases that nobody holds any more, and half-written ones. Deletes them."""
        if not self._folder.is_dir():
            return []
        with locked(self._guard):
            # Half-written ones exist under the guard only, so whatever is seen here has lost its writer.
            dead = [
                path
                for path in sorted(self._folder.iterdir())
                if path != self._guard and (path.suffix != ".json" or self._live_holder(path) is None)
            ]
            for path in dead if delete else ():
                path.unlink()
        return dead

    def _live_holder(self, path: Path) -> Holder | None:
        holder = _read(path)
        if holder is None or holder.is_gone():
            return None
        os.utime(self._guard)
        try:
            age = self._guard.stat().st_mtime - path.stat().st_mtime
        except FileNotFoundError:
            return None
        return holder if age < self._expiry_s else None


def this_process() -> Holder:
    """A holder that is this process, for one lease."""
    import psutil

    return Holder(_host(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of the file ``path`` (created if missing) for a moment; the kernel frees a dead one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


@cache
def _host() -> str:
    """Host name and, where the system tells it, the process number space: containers can share a host name."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()
