"""Attention inside documents by FlexAttention (arXiv 2412.05496): blocks of steps that nobody sees are not computed.

A GPU alone runs it, where layers are compiled: torch has no backward pass of it for CPUs, and as it is, not compiled,
it holds all scores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from calm_bench.lm.backbone import Attention
from calm_bench.regions import compiles_regions

BLOCK = 128
"""Steps of a block; of a text that is no longer, no block could be left out."""
SMALLEST_HEAD = 16
"""Numbers of a head that its kernels ask for at least."""


def suits_blocks(starts: Tensor, head_size: int) -> bool:
    """Whether attention is done in blocks here, for Long [B, n] on its device and heads of ``head_size``."""
    return starts.is_cuda and compiles_regions() and starts.shape[-1] > BLOCK and head_size >= SMALLEST_HEAD


def inside_blocks(starts: Tensor) -> Attention:
    """Attention of a whole text to itself, each step to those of its own document: for Long [B, n]."""
    return partial(_attended, block_mask(starts))


def block_mask(starts: Tensor) -> BlockMask:
    """Which steps each step sees, itself included: for Long [B, n], which step begins its document.

    What ``create_block_mask`` makes of the same mask, found from the first and the last step of each block: nothing of
    the size n x n is made, and nothing is waited for.
    """
    steps = starts.shape[-1]
    begins = torch.arange(0, steps, BLOCK, device=starts.device)
    ends = begins + BLOCK
    # Starts never fall: those of a block lie between that of its first step and that of its last.
    first = starts[:, ::BLOCK, None]
    last = starts[:, BLOCK - 1 :: BLOCK]
    # A block that the text does not fill is seen whole by nobody.
    last = torch.cat([last, last.new_full((len(last), len(begins) - last.shape[1]), steps)], dim=1)[..., None]
    is_met = (begins <= begins[:, None]) & (first < ends)
    is_whole = (begins < begins[:, None]) & (last <= begins)
    return BlockMask.from_kv_blocks(
        *_listed(is_met & ~is_whole),
        *_listed(is_whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=_seen_in(starts),
        seq_lengths=(steps, steps),
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Bool [B, rows, columns] -> how many are true in each row, int [B, 1, rows], and which, first in order."""
    order = blocks.byte().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32)[:, None], order.int()[:, None]


def _seen_in(starts: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The mask as FlexAttention asks for it, one number at a time."""

    def seen(row: Tensor, head: Tensor, step: Tensor, other: Tensor) -> Tensor:
        return (other <= step) & (other >= starts[row, step])

    return seen


def _attended(mask: BlockMask, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[B, n, H, e] and [B, n, G, e] -> [B, n, H, e]."""
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        # As autocast has it for other attention: queries and keys were rotated in fp32.
        query, key, value = (each.to(torch.get_autocast_dtype(kind)) for each in (query, key, value))
    attended = flex_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        block_mask=mask,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return attended.transpose(1, 2)
