"""Vocabulary-sized results without vocabulary-sized memory.

At Llama-3's 128 256 words, the logits of 8192 tokens take 4.2 GB in fp32, and nobody needs them all at once: training
wants their cross-entropy and sampling their argmax. Both are computed here a block of rows at a time.

Shape letters: R rows, d width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from calm_bench.regions import region

MAX_LOGITS = 1 << 24
"""Logits held at once on a CPU (64 MB in fp32)."""
MAX_LOGITS_ON_GPU = 1 << 29
"""The same on a GPU (2 GB in fp32): thousands of rows, or it would read the weights more often than multiply."""

CACHED_LOGITS = 1 << 22
"""The same where nothing is to be kept for a backward pass, on a CPU: 16 MB stay near its caches."""
CACHED_LOGITS_ON_GPU = 1 << 26
"""On a GPU (256 MB in fp32), where several tensors of this size are held to draw from them."""
SOFTMAX_LOGITS = 1 << 18
"""Logits whose softmax is computed at once on a CPU: 1 MB."""
SPAN = 128
"""Logits that are searched for their maximum together on a CPU."""
_MIN_ROWS = 128
"""Fewer, and reading the weights takes longer than multiplying with them."""


def decoding_rows(weight: Tensor) -> int:
    """Rows whose logits with ``weight`` [vocabulary, width] are best made together when only their argmax is wanted."""
    return max(_MIN_ROWS, (CACHED_LOGITS if weight.device.type == "cpu" else CACHED_LOGITS_ON_GPU) // weight.shape[0])


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, max_logits: int | None = None) -> Tensor:
    """Mean cross-entropy in nats of ``softmax(hidden @ weight.T)`` at ``targets``, in fp32.

    The gradients are computed in the forward pass, from the logits while they are there. That of ``weight`` is summed
    over blocks in fp32: thousands of blocks summed in bf16 lose half of it.

    Args:
        hidden: [R, d].
        weight: [V, d].
        targets: Long [R], token ids.
        max_logits: logits held at once, R V of a block of rows; unset means as many as suit the device.
    """
    return _summed(hidden, weight, targets, None, max_logits) / len(targets)


def weighted_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Sum over rows of ``scale`` times the cross-entropy in nats of ``softmax(hidden @ weight.T)`` at ``targets``.

    Its gradients are those of :func:`cross_entropy`.

    Args:
        hidden: [R, d].
        weight: [V, d].
        targets: Long [R], token ids.
        scale: fp32 [R], without a gradient.
    """
    return _summed(hidden, weight, targets, scale, None)


def _summed(hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor | None, max_logits: int | None) -> Tensor:
    if max_logits is None:
        max_logits = MAX_LOGITS if hidden.device.type == "cpu" else MAX_LOGITS_ON_GPU
    rows = max(1, max_logits // weight.shape[0])
    if not torch.is_grad_enabled():
        total = hidden.new_zeros((), dtype=torch.float32)
        for block, wanted, own in zip(
            hidden.split(rows), targets.split(rows), _scales(scale, targets, rows), strict=True
        ):
            logits = functional.linear(block, weight).float()
            if own is None:
                total = total + functional.cross_entropy(logits, wanted, reduction="sum")
            else:
                total = total + (own * functional.cross_entropy(logits, wanted, reduction="none")).sum()
        return total
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    summed: Tensor = _SummedCrossEntropy.apply(hidden, weight, targets, scale, rows, dtype)  # type: ignore[no-untyped-call]
    return summed


def _scales(scale: Tensor | None, targets: Tensor, rows: int) -> Sequence[Tensor | None]:
    """Of every block of ``rows``."""
    return scale.split(rows) if scale is not None else [None] * len(targets.split(rows))


class _SummedCrossEntropy(torch.autograd.Function):
    """Sum over rows, each times its ``scale`` where there is one, with the products in the given dtype."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor | None, rows: int, dtype: torch.dtype
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            inputs, matrix = hidden.to(dtype), weight.to(dtype)
            exact = torch.promote_types(dtype, torch.float32)
            of_hidden, of_weight = torch.empty_like(inputs), torch.zeros_like(weight, dtype=exact)
            total = hidden.new_zeros((), dtype=torch.float32)
            scales = _scales(scale, targets, rows)
            blocks = zip(inputs.split(rows), targets.split(rows), of_hidden.split(rows), scales, strict=True)
            for block, wanted, of_block, own in blocks:
                loss, of_logits = _loss_and_gradient(functional.linear(block, matrix), wanted, own)
                total = total + loss
                torch.mm(of_logits, matrix, out=of_block)
                if own is not None:
                    # Rows of a width, not of a vocabulary, are multiplied.
                    of_block *= own.unsqueeze(1)
                    block = (block * own.unsqueeze(1)).to(dtype)
                if dtype == exact:
                    of_weight.addmm_(of_logits.T, block)
                else:
                    of_weight += of_logits.T @ block
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        first, second = ctx.dtypes
        return (of_hidden.to(first) * of_total, (of_weight * of_total).to(second), None, None, None, None)


def _loss_and_gradient(logits: Tensor, targets: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross-entropy in fp32, summed with ``scale``, and the gradient softmax - one-hot in the dtype of ``logits``
    [R, V], without it.

    On a CPU the gradient takes the place of the logits, a few rows at a time, which stay in the processor's cache
    meanwhile; every row is what it is among all.
    """
    in_place = logits.device.type == "cpu" and logits.dtype != torch.bfloat16
    rows = max(1, SOFTMAX_LOGITS // logits.shape[1]) if in_place else len(logits)
    found, gradients = [], []
    for block, wanted in zip(logits.split(rows), targets.unsqueeze(1).split(rows), strict=True):
        log_probabilities, gradient = _softmax(block, wanted)
        found.append(log_probabilities)
        gradients.append(block.copy_(gradient) if in_place else gradient)
    if scale is None:
        # Summed by the loss, in its order, of rows that have one class each.
        loss = functional.nll_loss(torch.cat(found), torch.zeros_like(targets), reduction="sum")
    else:
        loss = -(scale * torch.cat(found)[:, 0]).sum()
    return loss, logits if in_place else gradients[0]


@region
def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities in fp32 of ``targets`` [r, 1], and the gradient softmax - one-hot, in the dtype of ``logits``
    [r, V]."""
    log_probabilities = functional.log_softmax(logits.float(), dim=-1)
    found = log_probabilities.gather(1, targets)
    gradient = log_probabilities.exp_()
    gradient.scatter_add_(1, targets, gradient.new_full(targets.shape, -1.0))
    return found, gradient.to(logits.dtype)


def argmax(hidden: Tensor, weight: Tensor, max_logits: int | None = None) -> Tensor:
    """Most likely token of every row: [rows, width] x [vocabulary, width] -> [rows].

    ``max_logits`` are held at once; unset means :func:`decoding_rows` rows of them.
    """
    blocks = hidden.split(decoding_rows(weight) if max_logits is None else max(1, max_logits // weight.shape[0]))
    return torch.cat([largest(functional.linear(block, weight)) for block in blocks])


def largest(logits: Tensor) -> Tensor:
    """``logits.argmax(dim=-1)`` of [R, V]: the first of the largest; NaN counts as the largest of all.

    torch looks for an argmax one number at a time on a CPU, for a maximum at a register full of them. So the span in
    which the maximum lies is found first.
    """
    size = logits.shape[1]
    if logits.device.type != "cpu" or size < 8 * SPAN:
        return logits.argmax(dim=-1)
    whole = size - size % SPAN
    maxima = logits[:, :whole].unflatten(1, (-1, SPAN)).amax(dim=-1)
    if whole < size:
        maxima = torch.cat([maxima, logits[:, whole:].amax(dim=-1, keepdim=True)], dim=1)
    # The last span begins earlier where it would end late: what lies in two spans is found in the first of them.
    start: Tensor = (maxima.argmax(dim=-1) * SPAN).clamp_max(size - SPAN)
    span = logits.gather(1, start[:, None] + torch.arange(SPAN))
    found: Tensor = start + span.argmax(dim=-1)
    return found


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
        likeliest.append(largest(logits))
    return torch.cat(found), torch.cat(likeliest)
