"""Attention inside documents: a text of several is read as if each of them stood alone (arXiv 2402.13991).

The token that ends a document begins the next one as an input: what comes behind it sees it and nothing before it, and
positions count from it. A chunk that holds the end of a document begins the next one in the same way, and whatever
stands in it before its last end is read as ends: a document's chunks are predicted from its own tokens only, but for
those of its tokens that share a chunk with the document before, which are predicted from that one.

Shape letters: [...] any leading dimensions, B sequences, n steps (chunks), K tokens of a chunk, H attention heads, G
key-value heads, e size of a head.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from calm_bench.lm.backbone import Attention, attend
from calm_bench.lm.document_blocks import inside_blocks, suits_blocks


class Read(NamedTuple):
    """Chunks as they are read where attention stays inside documents."""

    tokens: Tensor
    """ids [..., n * K]."""
    begins: Tensor
    """Bool [..., n], true where a step begins a document."""


def read_apart(tokens: Tensor, chunk_size: int, end: int) -> Read:
    """The chunks of ids [..., n * K], in which ``end`` ends documents."""
    is_end = (tokens == end).unflatten(-1, (-1, chunk_size))
    # A token stands at or before its chunk's last end where that one is still to come.
    comes = is_end.flip(-1).cumsum(-1).flip(-1) > 0
    return Read(tokens.masked_fill(comes.flatten(-2), end), is_end.any(dim=-1))


def document_starts(begins: Tensor) -> Tensor:
    """The step that begins each step's document: Bool [B, n] -> Long [B, n]; 0 before the first that begins one."""
    steps = torch.arange(begins.shape[-1], device=begins.device)
    return (steps * begins).cummax(dim=-1).values


def seen_inside(starts: Tensor) -> Tensor:
    """Which steps each step sees, itself included: Long [B, n] of :func:`document_starts` -> Bool [B, n, n]."""
    steps = torch.arange(starts.shape[-1], device=starts.device)
    return (steps <= steps[:, None]) & (steps >= starts[..., None])


def inside_documents(starts: Tensor, head_size: int) -> Attention:
    """Attention of a whole text to itself, each step to those of its own document: for Long [B, n].

    By blocks where a GPU trains with compiled layers, by a mask of all steps elsewhere.
    """
    if suits_blocks(starts, head_size):
        return inside_blocks(starts)
    return partial(_masked, seen_inside(starts))


def _masked(seen: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[B, n, H, e] and [B, n, G, e] -> [B, n, H, e]."""
    return attend(query, key.transpose(1, 2), value.transpose(1, 2), seen)
