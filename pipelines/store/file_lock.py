"""A lock that processes on one file system hold for a moment."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import IO

from calm_bench.kept_folders import make_folder

PATIENCE_S = 10.0
"""After so long it is said that a lock is waited for: it is held for moments, unless its holder is stopped (Ctrl-Z) or
on a host that is gone."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of the file ``path`` (created if missing) for a moment; the kernel frees a dead one's."""
    make_folder(path.parent)
    with path.open("a") as file:
        _wait_for(file, path)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _wait_for(file: IO[str], path: Path) -> None:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    timer = Timer(PATIENCE_S, lambda: print(_told(path), file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    finally:
        timer.cancel()


def _told(path: Path) -> str:
    """Who keeps the lock, in words."""
    holder = next(iter(_holders(path)), None)
    who = "another process" if holder is None else f"process {holder}{_standing(holder)}"
    return f"waiting for {who}, which holds the lock {path}"


def _holders(path: Path) -> Iterator[int]:
    """Processes on this machine that hold the lock of the file, as Linux tells."""
    with suppress(OSError, ValueError):
        found = path.stat()
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            # number: FLOCK ADVISORY WRITE process device:inode start end; those who wait have an arrow.
            words = line.split()
            if words[1] == "FLOCK" and words[5] == device:
                yield int(words[4])


def _standing(process: int) -> str:
    import psutil

    with suppress(psutil.Error):
        if psutil.Process(process).status() == psutil.STATUS_STOPPED:
            return f" (it is stopped: fg or kill -CONT {process} lets it go on)"
    return ""
