"""How busy the driver's machine is, under the names that MLflow's own monitor uses."""

from __future__ import annotations

import contextlib
import time
from typing import Any


class SystemMetrics:
    """Samples processor, memory, disk, network and, where there is one, GPU at most once in ``interval_s``.

    MLflow's collectors are used without its monitor thread, which would be a second writer.
    """

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._last = time.monotonic()
        self._collectors: list[Any] | None = None

    def sample(self) -> dict[str, float]:
        """``system/...`` -> value; empty before the interval has passed."""
        now = time.monotonic()
        if now - self._last < self._interval_s:
            return {}
        self._last = now
        if self._collectors is None:
            self._collectors = _collectors()
        values: dict[str, float] = {}
        for collector in self._collectors:
            collector.collect_metrics()
            values |= {f"system/{name}": float(value) for name, value in collector.aggregate_metrics().items()}
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
