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

from calm_bench.logit_parts import logit_parts
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
ARGMAX_ROWS = 1024
"""Rows whose argmax is looked for together on a CPU, in one part of the vocabulary after the other: the matrix library
copies a part of the weights for each product, and with few rows that takes long."""
VERY_FEW_ROWS = 3
"""Rows for which a CPU's matrix library has kernels of their own, several times as slow as those for so few columns."""
COMMON_WORDS = 256
"""Words among which :func:`argmax_among` looks for a likelier one, at most."""
FEWEST_WORDS = 4096
"""Of a vocabulary in which :func:`argmax_among` is faster than :func:`argmax`."""
FEWEST_LOGITS = 1 << 19
"""Of all rows, where about half of them are asked for in this way."""


def decoding_rows(weight: Tensor) -> int:
    """Rows of which all logits with ``weight`` [vocabulary, width] are best held together, without gradients."""
    return max(_MIN_ROWS, (CACHED_LOGITS if weight.device.type == "cpu" else CACHED_LOGITS_ON_GPU) // weight.shape[0])


def argmax_rows(weight: Tensor) -> int:
    """Rows whose :func:`argmax` with ``weight`` [vocabulary, width] is best looked for together."""
    return max(ARGMAX_ROWS, decoding_rows(weight)) if weight.device.type == "cpu" else decoding_rows(weight)


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
            blocks = zip(inputs.split(rows), targets.split(rows), scales, of_hidden.split(rows), strict=True)
            add = _by_parts if hidden.device.type == "cpu" and dtype != torch.bfloat16 else _at_once
            for block, wanted, own, of_block in blocks:
                total = total + add(block, matrix, wanted, own, of_block, of_weight)
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        first, second = ctx.dtypes
        return (of_hidden.to(first) * of_total, (of_weight * of_total).to(second), None, None, None, None)


def _at_once(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor | None, of_hidden: Tensor, of_weight: Tensor
) -> Tensor:
    """Cross-entropy in fp32, summed with ``scale``; its gradients are written into ``of_hidden`` [R, d] and added to
    ``of_weight``."""
    found, of_logits = _softmax(functional.linear(hidden, weight), targets.unsqueeze(1))
    torch.mm(of_logits, weight, out=of_hidden)
    inputs = _scaled(hidden, scale, of_hidden)
    if of_logits.dtype == of_weight.dtype:
        of_weight.addmm_(of_logits.T, inputs)
    else:
        of_weight += of_logits.T @ inputs
    return _total(found, scale)


def _by_parts(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor | None, of_hidden: Tensor, of_weight: Tensor
) -> Tensor:
    """As :func:`_at_once`, on a CPU and not in bf16.

    The gradient takes the place of the logits, and the logits of the next part its place, so that all stay near the
    processor's caches and the system need not be asked for memory, which costs as much as half a product. Every row is
    what it is among all.
    """
    sizes = logit_parts(len(hidden), weight.shape[0])
    logits, rows = hidden.new_empty((max(sizes), weight.shape[0])), max(1, SOFTMAX_LOGITS // weight.shape[0])
    scales = [None] * len(sizes) if scale is None else scale.split(sizes)
    found = []
    parts = zip(hidden.split(sizes), targets.unsqueeze(1).split(sizes), scales, of_hidden.split(sizes), strict=True)
    for part, wanted, own_scale, of_part in parts:
        own = torch.mm(part, weight.T, out=logits[: len(part)])
        for block, targets_of_block in zip(own.split(rows), wanted.split(rows), strict=True):
            log_probabilities, gradient = _softmax(block, targets_of_block)
            found.append(log_probabilities)
            block.copy_(gradient)
        torch.mm(own, weight, out=of_part)
        of_weight.addmm_(own.T, _scaled(part, own_scale, of_part))
    return _total(torch.cat(found), scale)


def _scaled(hidden: Tensor, scale: Tensor | None, of_hidden: Tensor) -> Tensor:
    """``hidden`` times ``scale``, and ``of_hidden`` in its place: rows of a width, not of a vocabulary, are
    multiplied."""
    if scale is None:
        return hidden
    of_hidden *= scale.unsqueeze(1)
    return (hidden * scale.unsqueeze(1)).to(hidden.dtype)


def _total(log_probabilities: Tensor, scale: Tensor | None) -> Tensor:
    """Minus the sum of [R, 1], each times its scale; without scales in the order of the loss: of rows that have one
    class each."""
    if scale is not None:
        return -(scale * log_probabilities[:, 0]).sum()
    targets = torch.zeros(len(log_probabilities), dtype=torch.long, device=log_probabilities.device)
    return functional.nll_loss(log_probabilities, targets, reduction="sum")


@region
def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities in fp32 of ``targets`` [r, 1], and the gradient softmax - one-hot, in the dtype of ``logits``
    [r, V]."""
    log_probabilities = functional.log_softmax(logits.float(), dim=-1)
    found = log_probabilities.gather(1, targets)
    gradient = log_probabilities.exp_()
    gradient.scatter_add_(1, targets, gradient.new_full(targets.shape, -1.0))
    return found, gradient.to(logits.dtype)


def argmax(hidden: Tensor, weight: Tensor) -> Tensor:
    """Most likely token of every row: [rows, width] x [vocabulary, width] -> [rows], a block of logits at a time."""
    return torch.cat([_argmax(block, weight) for block in hidden.split(argmax_rows(weight))])


def _argmax(hidden: Tensor, weight: Tensor) -> Tensor:
    """Of rows that are looked at together."""
    words = len(weight)
    if hidden.device.type == "cpu":
        words = max(1, CACHED_LOGITS // (SPAN * max(1, len(hidden)))) * SPAN
    if words >= len(weight):
        return largest(_logits(hidden, weight))
    tokens, logits = [], []
    for start, part in zip(range(0, len(weight), words), weight.split(words), strict=True):
        of_part = _logits(hidden, part)
        likeliest = largest(of_part)
        tokens.append(start + likeliest)
        logits.append(of_part.gather(1, likeliest[:, None])[:, 0])
    found: Tensor = torch.stack(tokens).gather(0, torch.stack(logits).argmax(dim=0, keepdim=True))[0]
    return found


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """[rows, V], of which nothing is wanted but which are the largest."""
    if hidden.device.type == "cpu" and len(hidden) <= VERY_FEW_ROWS:
        return (weight @ hidden.T).T.contiguous()
    return functional.linear(hidden, weight)


def argmax_among(hidden: Tensor, weight: Tensor, among: Tensor) -> Tensor:
    """:func:`argmax` of the rows where it is one of ``among``; elsewhere -1 may stand in its place.

    On a CPU, a row is done where one of the words that are most common in ``among`` is likelier than its own.

    Args:
        hidden: [rows, width].
        weight: [vocabulary, width].
        among: Long [rows, n], ids.
    """
    if weight.device.type != "cpu":
        return argmax(hidden, weight)
    words, counts = among.unique(return_counts=True)
    common = words[counts.topk(min(COMMON_WORDS, len(words))).indices]
    rows = _may_be_largest(hidden, weight[common], weight[among]).nonzero()[:, 0]
    found = torch.full((len(hidden),), -1)
    if len(rows):
        found[rows] = argmax(hidden[rows], weight)
    return found


def pays_to_know(num_rows: int, weight: Tensor) -> bool:
    """Whether it is faster to ask by :func:`argmax_among` about half of so many rows, should they differ."""
    return weight.device.type == "cpu" and len(weight) >= FEWEST_WORDS and num_rows * len(weight) >= FEWEST_LOGITS


def _may_be_largest(hidden: Tensor, words: Tensor, own: Tensor) -> Tensor:
    """Whether a word of each row, ``own`` [R, n, d], is as likely as all ``words`` [w, d], or too close to tell by
    products that round differently: Bool [R]."""
    likeliest = functional.linear(hidden, words).amax(dim=-1)
    logits = (own * hidden.unsqueeze(1)).sum(dim=-1).amax(dim=-1)
    norm = torch.linalg.vector_norm
    sizes = norm(hidden, dim=-1) * norm(own, dim=-1).amax(dim=-1).maximum(norm(words, dim=-1).amax())
    # Any order of summation is at most width * eps / 2 of the summed sizes off, which are at most the norms' product.
    error = hidden.shape[1] * torch.finfo(hidden.dtype).eps * sizes
    may_be: Tensor = ~(likeliest > logits + error)  # NaN is as likely as anything
    return may_be


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
