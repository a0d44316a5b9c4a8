"""The arithmetic of a result: number format and kind of device. Nothing here imports torch.

A training in bf16 and one in fp32 are not the same experiment, nor are noise on a GPU and noise on a CPU: torch's
generators give other numbers there. ``precision: auto`` is one or the other, so every trained model says which.
"""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16"]


def resolve_precision(precision: Literal["auto", "fp32", "bf16"], device: str) -> Precision:
    """The format of matrix products in a training on ``device``: ``auto`` is bf16 on a GPU and fp32 on a CPU."""
    if precision != "auto":
        return precision
    return "bf16" if device.startswith("cuda") else "fp32"


def training_arithmetic(precision: Literal["auto", "fp32", "bf16"], device: str, is_compiled: bool = False) -> str:
    """As a row of a leaderboard names it: ``fp32 on cpu``, ``bf16 on cuda, compiled``.

    Compiled code (:mod:`calm_bench.regions`) rounds otherwise than torch's own operations.
    """
    kind = "cuda" if device.startswith("cuda") else "cpu"
    return f"{resolve_precision(precision, device)} on {kind}{', compiled' if is_compiled else ''}"
