"""Ends processes that this one has started, and theirs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Kill ``processes`` and all that they have started; those that are gone are no error."""
    found: set[psutil.Process] = set()
    new = set(processes)
    while new:
        for process in new:
            with suppress(psutil.Error):
                # Stopped first: what is killed later could still start another one, which nobody would find.
                process.suspend()
        found |= new
        new = {child for process in new for child in _children(process)} - found
    for process in found:
        with suppress(psutil.Error):
            process.kill()


def end_descendants() -> None:
    """Kill all that this process has started."""
    end_all(psutil.Process().children())


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(process.children())
    return []
