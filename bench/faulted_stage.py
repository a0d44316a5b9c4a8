"""A stage of a running study into which a fault is injected, seen from outside: when it is held and works again."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.store.refs import StageRef
from pipelines.store.store import Store
from tests.faults.small_study import wait_for, worker_of

PATIENCE_S = 240.0


@dataclass(frozen=True)
class Recovery:
    """What one fault cost. Times in seconds; :mod:`bench.recovery` says what they mean."""

    noticed_s: float
    resumed_s: float
    start_up_s: float | None = None
    lost_steps: float = 0.0
    lost_s: float = 0.0

    @property
    def recovery_s(self) -> float:
        return self.noticed_s + self.resumed_s


class FaultedStage:
    """A stage in its work folder. Made before the fault, whose time :meth:`inject` notes."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.folder = folder
        self.injected = time.monotonic()
        self._store = store
        self._path = store.root / "leases" / f"{folder.name}.json"
        self._lease = self._read_lease()
        self._before: list[dict[str, Any]] = []

    @staticmethod
    def while_running(store: Store, kind: str, of: subprocess.Popen[str], after_step: int = 1) -> FaultedStage:
        """The first stage of ``kind`` that has logged ``after_step``, which may lie between two checkpoints."""

        def found() -> Path | None:
            folders = (store.root / "work").glob(f"{kind}-*")
            return next((folder for folder in folders if last_step(folder) >= after_step), None)

        return FaultedStage(store, wait_for(found, f"{kind} has logged step {after_step}", PATIENCE_S, of))

    @property
    def worker(self) -> int:
        """The process that works on it."""
        return worker_of(self._store, self.folder)

    def seem_elsewhere(self) -> None:
        """Let its lease be that of another host, where nobody can see from here whether the holder lives."""
        times = self._path.stat()
        self._path.write_text(json.dumps(json.loads(self._path.read_text()) | {"host": "elsewhere"}))
        os.utime(self._path, ns=(times.st_atime_ns, times.st_mtime_ns))
        self._lease = self._read_lease()

    def inject(self) -> None:
        """The fault is now; :meth:`recovery` must follow at once, to see all that the old worker still logs."""
        self.injected = time.monotonic()
        self._before = self._lines()

    def recovery(self, of: subprocess.Popen[str], given: float | None = None) -> Recovery:
        """Wait for the stage to work again.

        Args:
            of: the driver that takes it up.
            given: when a person gave the same command, after the first one had ended; unset where nobody had to.
        """
        held = self._held_again(of)
        resumed, line = self._first_new_line(of)
        before = self._before
        interval = before[0]["step"] if before else line["step"]
        kept = [old for old in before if old["step"] <= line["step"] - interval]
        return Recovery(
            noticed_s=(held if given is None else given) - self.injected,
            resumed_s=resumed - held,
            start_up_s=None if given is None else held - given,
            lost_steps=before[-1]["step"] - (kept[-1]["step"] if kept else 0) if before else 0,
            lost_s=before[-1]["time"] - (kept[-1]["time"] if kept else 0.0) if before else 0.0,
        )

    def _held_again(self, process: subprocess.Popen[str]) -> float:
        """When somebody else has the lease."""

        def taken() -> bool:
            if (lease := self._read_lease()) is not None and lease != self._lease:
                return True
            self._before = self._lines()
            return False

        wait_for(taken, f"{self.folder.name} is held again", PATIENCE_S, process)
        return time.monotonic()

    def _first_new_line(self, process: subprocess.Popen[str]) -> tuple[float, dict[str, Any]]:
        """When the resumed stage has written a line, and that line: no two attempts take equal times to a step."""

        def new() -> dict[str, Any] | None:
            return next((line for line in self._lines() if line not in self._before), None)

        line = wait_for(new, f"{self.folder.name} works again", PATIENCE_S, process)
        return time.monotonic(), line

    def _read_lease(self) -> str | None:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return None

    def _lines(self) -> list[dict[str, Any]]:
        """Whole lines of the stage's metrics, finished or not."""
        ref = StageRef.parse(self.folder.name)
        for folder in (self.folder, self._store.root / "stages" / ref.kind / ref.identity):
            if (folder / "metrics.jsonl").exists():
                return _lines_in(folder / "metrics.jsonl")
        return []


def last_step(folder: Path) -> int:
    """The newest step that a stage has logged, 0 before the first."""
    lines = _lines_in(folder / "metrics.jsonl")
    return int(lines[-1]["step"]) if lines else 0


def _lines_in(path: Path) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
