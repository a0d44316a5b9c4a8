"""Parts of a block of logits, which a CPU makes and uses one after the other. Without torch, since plans ask too.

Smaller blocks would do as well, but for the bits of what they give.
"""

from __future__ import annotations

PART_LOGITS = 1 << 22
"""Logits of a part whose gradients are made, about: 16 MB stay near a CPU's caches, and need not be asked of the system
again and again."""
DRAWN_LOGITS = 1 << 20
"""Logits of a part that is drawn from, about: several tensors of this size are held, one of them in fp64."""
DRAWN_ROWS = 64
"""Rows of such a part at the least: with fewer, reading a large vocabulary's weights takes longer than the products."""
SUMMED_ROWS = 192
"""Rows that MKL sums at a time. What is more than that and less than twice as many it halves."""
FEW_ROWS = 16
"""Fewer are multiplied by other kernels, whose bits differ."""


def logit_parts(num_rows: int, vocab_size: int) -> list[int]:
    """Rows of each part of ``num_rows`` that are multiplied with other rows.

    A matrix product sums over some rows at a time and adds the sum to those before. Parts that end where the product's
    own sums do therefore have the bits of one product over all rows.
    """
    if num_rows < 2 * SUMMED_ROWS:
        return [num_rows]
    size = max(1, PART_LOGITS // (vocab_size * SUMMED_ROWS)) * SUMMED_ROWS
    whole, rest = divmod(num_rows, size)
    while 0 < rest < FEW_ROWS or SUMMED_ROWS < rest < 2 * SUMMED_ROWS:
        whole, rest = whole - 1, rest + size
    return [size] * whole + ([rest] if rest else [])


def drawn_parts(num_rows: int, block: int, vocab_size: int) -> list[int]:
    """Rows of each part of blocks of ``block`` rows that are drawn from; none has few rows but where its block has."""
    size = max(DRAWN_ROWS, DRAWN_LOGITS // vocab_size)
    parts = []
    for start in range(0, num_rows, block):
        whole, rest = divmod(min(block, num_rows - start), size)
        if whole and 0 < rest < FEW_ROWS:
            whole, rest = whole - 1, rest + size
        parts += [size] * whole + ([rest] if rest else [])
    return parts
