"""A driver's own account of its study, sent to an object store for those who watch from another host."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.common.at_end import at_end
from pipelines.store.holder import this_process
from pipelines.store.layout import PROGRESS, STUDIES
from pipelines.store.object_store import ObjectStore

SEND_S = 20.0
"""Between two accounts."""
LAST_WORD_S = 2.0
"""The end of a process waits no longer for it."""
OLD_S = 24 * 3600.0
"""Accounts of drivers that fell silent are kept for so long."""


class ProgressSender:
    """Sends what this process records of one study, in a thread of its own, until the record says that it has ended.

    Never raises: nobody may be disturbed for those who watch.
    """

    def __init__(self, objects: ObjectStore, folder: Path, every_s: float) -> None:
        self._objects = objects
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
                self._objects.write(f"{self._prefix}/{path.name}", path.read_bytes())
                self._sent[path.name] = stamp

    def _sweep(self) -> None:
        """Delete the accounts of drivers that have ended: of a study that goes on, none of them tells how it stands."""
        found = self._objects.list(self._prefix)
        newest = max((info.modified for info in found.values()), default=0.0)
        old = {key for key, info in found.items() if newest - info.modified > OLD_S}
        others = [key for key in found if key not in old and key.rpartition("/")[2] not in self._sent]
        ended = {key for key, content in self._objects.read_many(others).items() if has_ended(content)}
        self._objects.delete(old | ended)

    @property
    def _prefix(self) -> str:
        return f"{STUDIES}/{self._folder.name}/{PROGRESS}"


def has_ended(content: bytes) -> bool:
    """Whether an account is of a driver that has said its last word."""
    try:
        return bool(json.loads(content)["state"] != "at work")
    except (ValueError, KeyError, TypeError):
        return False
