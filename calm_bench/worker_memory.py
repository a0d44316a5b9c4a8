"""Memory of one of several workers of a training, and the sequences at once that fit into it. Without torch."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Literal

from calm_bench.config import Training
from calm_bench.flops import CostBreakdown
from calm_bench.memory import FLOAT, Memory

BF16 = 2
"""Bytes of a number in bf16."""
HEADROOM = 0.85
"""Share of a device's memory that ``auto`` fills: the closed forms are a few percent off, allocators leave gaps."""


def rows_at_once(training: Training, workers: int) -> int:
    """Sequences that one of ``workers`` computes at once where memory is no question: a micro-batch, or its share."""
    rows = training.batch_size // training.gradient_accumulation
    return rows if training.gradient_accumulation % workers == 0 else ceil(rows / workers)


def fitting_rows(
    asked: int | Literal["auto"], rows: int, bytes_of: Callable[[int], float], available: float | None
) -> int:
    """Sequences that a worker computes at once: ``rows``, or fewer where that is asked for or they do not fit.

    Args:
        asked: ``execution.micro_batch``.
        bytes_of: from sequences at once to bytes of a worker.
        available: bytes that the worker may use; None where nobody knows, which is taken for enough.

    Returns:
        A number by which the ``rows`` make pieces as even as can be; 1 where not even one sequence fits.
    """
    if asked != "auto":
        return min(asked, rows)
    if available is None:
        return rows
    sizes = (ceil(rows / pieces) for pieces in range(1, rows + 1))
    return next((size for size in sizes if bytes_of(size) <= HEADROOM * available), 1)


def divided_memory(
    memory: Memory,
    workers: int,
    strategy: Literal["ddp", "fsdp"],
    trained: float,
    frozen: float,
    device: Literal["cpu", "cuda"],
    layer: float = 0.0,
    num_layers: int = 0,
) -> Memory:
    """Bytes of one of ``workers`` at the worst moment, where one process would need ``memory`` for the same rows.

    Args:
        trained: parameters that are trained.
        frozen: parameters that are there besides.
        layer: those of each of ``num_layers`` layers, which ``fsdp`` gathers when it is their turn; all others are
            whole from the forward to the backward pass.
    """
    if workers == 1:
        return memory
    parts = dict(memory.parts.parts)
    if strategy == "ddp":
        # In which gradients are collected to be sent.
        return Memory(CostBreakdown(parts | {"buckets": FLOAT * trained}))
    layers = layer * num_layers
    # Copies in bf16 for autocast; those of layers are what is gathered, of one layer and of the next.
    copies = parts["weights"] - FLOAT * (trained + frozen)
    gathered = 2 * layer * (BF16 if copies else FLOAT)
    others = FLOAT * (trained - layers) + max(copies - BF16 * layers, 0.0)
    pieces = parts | {
        "weights": FLOAT * (trained / workers + frozen) + others + gathered,
        "gradients": parts.get("gradients", 0.0) / workers,
        "optimizer": parts.get("optimizer", 0.0) / workers,
    }
    # It is built whole before it is divided; on CPUs the first worker gathers the finished one in the same memory.
    whole = FLOAT * (trained + frozen)
    if device == "cpu":
        whole += pieces["weights"] + pieces["optimizer"]
    least = {"process": parts["process"], "whole model": whole}
    return Memory(CostBreakdown(max(pieces, least, key=lambda found: sum(found.values()))))
