"""Vocabulary-sized results without vocabulary-sized memory.

At Llama-3's 128 256 words, the logits of 8192 tokens take 4.2 GB in fp32, and nobody needs them all at once: training
wants their cross-entropy and sampling their argmax. Both are computed here a block of rows at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

MAX_LOGITS = 1 << 24
"""Logits held at once (64 MB in fp32)."""

CACHED_LOGITS = 1 << 22
"""The same where nothing is to be kept for a backward pass, on a CPU: 16 MB stay near its caches."""
_MIN_ROWS = 128
"""Fewer, and reading the weights takes longer than multiplying with them."""


def decoding_rows(weight: Tensor) -> int:
    """Rows whose logits with ``weight`` [vocabulary, width] are best made together when only their argmax is wanted."""
    return max(_MIN_ROWS, (CACHED_LOGITS if weight.device.type == "cpu" else MAX_LOGITS) // weight.shape[0])


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, max_logits: int = MAX_LOGITS) -> Tensor:
    """Mean cross-entropy in nats of ``softmax(hidden @ weight.T)`` at ``targets``.

    Args:
        hidden: [rows, width].
        weight: [vocabulary, width].
        targets: [rows], token ids.
        max_logits: logits held at once; beyond it blocks of rows are recomputed in the backward pass.
    """
    rows = max(1, max_logits // weight.shape[0])
    if len(hidden) <= rows:
        return _summed(hidden, weight, targets) / len(targets)
    total = hidden.new_zeros((), dtype=torch.float32)
    for block, block_targets in zip(hidden.split(rows), targets.split(rows), strict=True):
        part = checkpoint(_summed, block, weight, block_targets, use_reentrant=False)
        assert isinstance(part, Tensor)
        total = total + part
    return total / len(targets)


def argmax(hidden: Tensor, weight: Tensor, max_logits: int | None = None) -> Tensor:
    """Most likely token of every row: [rows, width] x [vocabulary, width] -> [rows].

    ``max_logits`` are held at once; unset means :func:`decoding_rows` rows of them.
    """
    blocks = hidden.split(decoding_rows(weight) if max_logits is None else max(1, max_logits // weight.shape[0]))
    return torch.cat([functional.linear(block, weight).argmax(dim=-1) for block in blocks])


@torch.no_grad()
def log_probabilities_and_argmax(
    hidden: Tensor, weight: Tensor, targets: Tensor, max_logits: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logarithms of ``softmax(hidden @ weight.T)`` at ``targets``, fp32, and :func:`argmax` from the same logits.

    Args:
        hidden: [rows, width].
        weight: [vocabulary, width].
        targets: [rows], token ids.
        max_logits: logits held at once; unset means :func:`decoding_rows` rows of them.

    Returns:
        Two [rows].
    """
    size = decoding_rows(weight) if max_logits is None else max(1, max_logits // weight.shape[0])
    found, likeliest = [], []
    for block, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = functional.linear(block, weight).float()
        found.append(-functional.cross_entropy(logits, wanted, reduction="none"))
        likeliest.append(logits.argmax(dim=-1))
    return torch.cat(found), torch.cat(likeliest)


def _summed(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(hidden, weight).float(), targets, reduction="sum")
