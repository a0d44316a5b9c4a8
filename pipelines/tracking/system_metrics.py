"""How busy the driver's machine is, under the names that MLflow's own monitor uses, and the file that keeps it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "system.jsonl"
"""In a study's folder: a line a sample. The first has no values: it says when the study first began."""


@dataclass(frozen=True)
class Sample:
    """The machine at a moment."""

    time: int
    """Milliseconds since 1970."""
    values: Mapping[str, float]
    """By metric, ``system/...``; with the host's name between, where another one began the study."""


class SystemLog:
    """A study's samples on disk, so that they outlast a tracking server that is away and a driver that is killed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._read_to = 0
        self._first_host: str | None = None

    def begin(self, now: int) -> None:
        """Note ``now`` as the study's start, unless an earlier driver has."""
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._append(now, {})

    def add(self, now: int, values: Mapping[str, float]) -> None:
        self._append(now, values)

    def start(self) -> int | None:
        """When the study first began; None where it ran without a mirror."""
        first = next(self._records(0)[0], None)
        return None if first is None else int(first["time"])

    def rewind(self) -> None:
        """Let :meth:`new` begin anew."""
        self._read_to = 0

    def new(self) -> Iterator[Sample]:
        """The samples that no earlier call has given."""
        records, self._read_to = self._records(self._read_to)
        for record in records:
            self._first_host = self._first_host or record["host"]
            inside = "" if record["host"] == self._first_host else f"{record['host']}/"
            yield Sample(int(record["time"]), {f"system/{inside}{k}": float(v) for k, v in record["values"].items()})

    def _records(self, offset: int) -> tuple[Iterator[dict[str, Any]], int]:
        """What stands after ``offset``, and where it ends."""
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return iter(()), offset
        whole = content[: content.rfind(b"\n") + 1]
        return _parsed(whole.splitlines()), offset + len(whole)

    def _append(self, now: int, values: Mapping[str, float]) -> None:
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        line = json.dumps({"time": now, "host": socket.gethostname(), "values": rounded})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        # A full disk may have cut one in two.
        with contextlib.suppress(ValueError):
            yield json.loads(line)


class SystemMetrics:
    """Samples processor, memory, disk, network and, where there is one, GPU at most once in ``interval_s``.

    MLflow's collectors are used without its monitor thread, which would be a second writer.
    """

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._last = time.monotonic()
        self._collectors: list[Any] | None = None

    def sample(self) -> dict[str, float]:
        """Name -> value; empty before the interval has passed."""
        now = time.monotonic()
        if now - self._last < self._interval_s:
            return {}
        self._last = now
        if self._collectors is None:
            self._collectors = _collectors()
        values: dict[str, float] = {}
        for collector in self._collectors:
            collector.collect_metrics()
            values |= {str(name): float(value) for name, value in collector.aggregate_metrics().items()}
            collector.clear_metrics()
        return values


def _collectors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    collectors = [kind() for kind in kinds]
    # No GPU, or no library to ask it: the other numbers still count.
    with contextlib.suppress(ImportError, RuntimeError):
        gpu: Any = GPUMonitor
        collectors.append(gpu())
    return collectors
