"""Medians of interleaved runs, and the peak memory of one."""

from __future__ import annotations

import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

REPETITIONS = 5


def medians(variants: Mapping[str, Callable[[], object]], repetitions: int = REPETITIONS) -> dict[str, float]:
    """Seconds that each variant takes: the median of its runs, which take turns after one warm-up each.

    Turns, because whatever else the machine does then disturbs all variants alike.
    """
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repetitions):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(run: Callable[[], object]) -> float:
    """MB by which the process's resident memory rises above its level before ``run``, at the most (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1000


def in_a_fresh_process(module: str, *arguments: str) -> float:
    """The number that ``module`` prints: memory must not depend on what an allocator kept from earlier runs."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def machine() -> str:
    """The processor, for the head of a table."""
    import torch

    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.machine()}, {torch.get_num_threads()} thread, torch {torch.__version__}"


def _status(field: str) -> float:
    """Kilobytes of a field of /proc/self/status."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return float(found[1])
