"""Whether this CPU is faster in bf16 than in fp32, measured in a fraction of a second.

Instructions alone do not tell: a CPU may have them and torch's build not use them; without them torch converts every
number there and back, which has been seen to take tens of times as long.
"""

from __future__ import annotations

import time
from statistics import median

WIDTH = 512
REPEATS = 5
PAYS_FROM = 1.5
"""A step gains less than its products do: casts, norms and the optimizer stay as they are."""


def bf16_speedup() -> float:
    """Seconds of a matrix product in fp32 over those in bf16 on this CPU, medians of runs in turns."""
    import torch

    inputs = {dtype: torch.ones((WIDTH, WIDTH), dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    times: dict[torch.dtype, list[float]] = {dtype: [] for dtype in inputs}
    with torch.no_grad():
        for matrix in inputs.values():
            torch.nn.functional.linear(matrix, matrix)
        for _ in range(REPEATS):
            for dtype, matrix in inputs.items():
                before = time.process_time()
                torch.nn.functional.linear(matrix, matrix)
                times[dtype].append(time.process_time() - before)
    return median(times[torch.float32]) / max(median(times[torch.bfloat16]), 1e-9)
