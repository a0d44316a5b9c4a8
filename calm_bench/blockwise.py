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


def argmax(hidden: Tensor, weight: Tensor, max_logits: int = MAX_LOGITS) -> Tensor:
    """Most likely token of every row: [rows, width] x [vocabulary, width] -> [rows]."""
    rows = max(1, max_logits // weight.shape[0])
    return torch.cat([functional.linear(block, weight).argmax(dim=-1) for block in hidden.split(rows)])


def _summed(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(hidden, weight).float(), targets, reduction="sum")
