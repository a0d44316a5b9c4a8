"""How busy the driver's machine is, as MLflow shows it, and the file that keeps it.

MLflow's own monitor ends for good at the first request that its server misses. Here its collectors are read into a file
in the study's folder, and the file is sent as the others are: nothing is lost while a server is away.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calm_bench.kept_folders import make_folder

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

    def begin(self, now: int) -> None:
        """Note ``now`` as the study's start, unless an earlier driver has."""
        if not self._path.exists():
            make_folder(self._path.parent)
            self.add(now, {})

    def add(self, now: int, values: Mapping[str, float]) -> None:
        """Write a sample of the time ``now``, in milliseconds since 1970."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        line = json.dumps({"time": now, "host": socket.gethostname(), "values": rounded})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def start(self) -> int | None:
        """When the study first began; None where it ran without tracking."""
        first = next(self.samples(), None)
        return None if first is None else first.time

    def samples(self) -> Iterator[Sample]:
        """All samples, oldest first; a last line that is half written waits."""
        first_host = None
        with contextlib.suppress(FileNotFoundError), self._path.open(encoding="utf-8") as file:
            for line in file:
                # A full disk may have cut one in two.
                with contextlib.suppress(ValueError):
                    found = json.loads(line)
                    first_host = first_host or found["host"]
                    inside = "" if found["host"] == first_host else f"{found['host']}/"
                    values = {f"system/{inside}{name}": float(value) for name, value in found["values"].items()}
                    yield Sample(int(found["time"]), values)


class SystemSampler:
    """A thread that writes processor, memory, disk, network and, where there is one, GPU into ``log``.

    Args:
        failed: told why there are no samples.
    """

    def __init__(self, log: SystemLog, interval_s: float, failed: Callable[[str], None]) -> None:
        self.is_wanted = False
        """Whether anything runs that is worth a sample."""
        self._log = log
        self._interval_s = interval_s
        self._failed = failed
        self._stopped = threading.Event()
        self._adding = threading.Lock()

    def start(self) -> None:
        """Begin; the first sample is taken when an interval has passed."""
        threading.Thread(target=self._work, name="system-metrics", daemon=True).start()

    def stop(self) -> None:
        """Write no more samples, not even one that is being taken: what is read of the log afterwards is all."""
        with self._adding:
            self._stopped.set()

    def _work(self) -> None:
        collectors: list[Any] | None = None
        try:
            while not self._stopped.wait(self._interval_s):
                if not self.is_wanted:
                    continue
                collectors = collectors or _collectors()
                values: dict[str, float] = {}
                for collector in collectors:
                    collector.collect_metrics()
                    values |= {str(name): float(value) for name, value in collector.aggregate_metrics().items()}
                    collector.clear_metrics()
                with self._adding:
                    if self.is_wanted and not self._stopped.is_set():
                        self._log.add(time.time_ns() // 1_000_000, values)
        except Exception as error:  # a driver, a library or the disk: the study goes on without samples
            self._failed(f"system metrics: {type(error).__name__}: {error}")


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
