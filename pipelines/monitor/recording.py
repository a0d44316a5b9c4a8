"""A driver's own account of its study, for those who watch from another terminal or another host.

    <study folder>/progress/<driver>.json

One file a driver, written whole by one rename, every two seconds while something happens, and touched every few
seconds while nothing does: so a driver that was killed is known by its silence. Nobody reads it to decide anything.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from calm_bench.errors import StopRequested
from calm_bench.frozen import Frozen
from calm_bench.working_directory import working_directory
from pipelines.common.screen import bearable
from pipelines.execution.interrupt import this_command
from pipelines.monitor.tracker import Tracker
from pipelines.monitor.view import StudyView
from pipelines.store.folder_leases import HEARTBEAT_S
from pipelines.store.holder import Holder, this_process
from pipelines.store.layout import PROGRESS

FOLDER = PROGRESS
WRITE_S = 2.0
SILENT_S = 60.0
"""A driver on another host that has not been heard of for so long is taken for dead."""
State = Literal["at work", "finished", "stopped", "failed"]


class Driver(Frozen):
    """The process that wrote a record."""

    host: str
    pid: int
    started: float
    token: str

    def holder(self) -> Holder:
        return Holder(self.host, self.pid, self.started, self.token)


class Record(Frozen):
    """What one driver tells."""

    driver: Driver
    state: State
    began: float
    """Seconds since the epoch."""
    written: float
    command: str
    """By which the study was started, and goes on."""
    folder: str
    """Where that command was given."""
    view: StudyView


class Recording:
    """Writes a tracker's view into the study's folder until it is closed; never raises."""

    def __init__(self, tracker: Tracker, write_s: float = WRITE_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._tracker = tracker
        self._write_s = write_s
        self._heartbeat_s = heartbeat_s
        self._holder = this_process()
        # It may be moved or removed later.
        self._folder = bearable(str(working_directory()), "utf-8")
        self._began = time.time()
        self._path: Path | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._last: StudyView | None = None
        self._last_touch = 0.0

    def start(self, study_folder: Path) -> None:
        """Begin, and remove what drivers left behind that are gone."""
        self._path = study_folder / FOLDER / f"{self._holder.token}.json"
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            _remove_old(self._path.parent)
        self._write("at work")
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
        self._thread.start()

    def close(self, error: BaseException | None = None) -> None:
        """Write for the last time, with how the driver ended."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        state: State = "finished"
        if error is not None:
            state = "stopped" if isinstance(error, KeyboardInterrupt | StopRequested) else "failed"
        self._write(state)

    def _work(self) -> None:
        while not self._ended.wait(self._write_s):
            self._write("at work")

    def _write(self, state: State) -> None:
        assert self._path is not None
        # A disk that is full or away must not disturb the study.
        with contextlib.suppress(OSError):
            view = self._tracker.view()
            # The clock alone is no news.
            told = view.model_copy(update={"elapsed_s": 0.0})
            if state == "at work" and told == self._last:
                if time.monotonic() - self._last_touch >= self._heartbeat_s:
                    self._last_touch = time.monotonic()
                    os.utime(self._path)
                return
            record = Record(
                driver=Driver(**vars(self._holder)),
                state=state,
                began=self._began,
                written=time.time(),
                # Bytes in paths that are no text cannot be written as JSON.
                command=bearable(this_command(), "utf-8"),
                folder=self._folder,
                # Not with the store's own place: it may move.
                view=view.model_copy(update={"folder": self._path.parent.parent.name}),
            )
            # Not flushed to disk: what a power cut takes of it is worth nothing afterwards.
            half = self._path.with_name(f".{self._path.name}")
            half.write_text(record.model_dump_json(), encoding="utf-8")
            half.replace(self._path)
            self._last, self._last_touch = told, time.monotonic()


def read_record(path: Path) -> Record | None:
    """What a driver wrote, with its study's folder as it is now; None where it cannot be read."""
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    view = record.view.model_copy(update={"folder": str(path.parent.parent)})
    return record.model_copy(update={"view": view})


def _remove_old(folder: Path) -> None:
    for path in folder.iterdir():
        record = None if path.name.startswith(".") else read_record(path)
        silent = time.time() - path.stat().st_mtime > SILENT_S
        if silent if record is None else record.state != "at work" or record.driver.holder().is_gone():
            path.unlink(missing_ok=True)
