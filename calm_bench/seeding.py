"""One seed, many independent named streams.

A stream is a pure function of (seed, names): no global generator is touched, and nothing needs to be stored to resume
at step n, because step n's stream can be made again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` of ``seed``; different names give unrelated streams."""
    text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for the stream ``names`` of ``seed``."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *names))
