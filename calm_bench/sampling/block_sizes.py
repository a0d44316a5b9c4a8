"""How many samples of a text are continued together. Without torch, since plans ask too."""

from __future__ import annotations

BLOCK_SAMPLES = 4096
"""On a CPU."""
BLOCK_SAMPLES_ON_GPU = 1 << 16
"""On a GPU, which is waited for some ten times in every block."""


def samples_at_once(device: str) -> int:
    """Samples that are best continued together on ``device``, such as ``cuda:1``."""
    return BLOCK_SAMPLES if device.startswith("cpu") else BLOCK_SAMPLES_ON_GPU
