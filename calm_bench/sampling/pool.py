"""Pools of candidate chunks: which of a row's candidates are the same chunk, and how often each occurs.

Shape letters: R rows, M candidates of a row, K tokens of a chunk.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_ID_BITS = 63


class Source(Protocol):
    """Where candidates come from; row r's come from a generator of its own, whatever other rows ask for."""

    def chunks(self, rows: list[int], count: int) -> Tensor:
        """``count`` new independent candidates of each of ``rows``: Long [len(rows), count, K]."""
        ...

    def uniform(self, rows: list[int], count: int) -> Tensor:
        """Uniform numbers in [0, 1): fp64 [len(rows), count]."""
        ...


def chunk_ids(chunks: Tensor) -> Tensor:
    """Numbers 0, 1, ... by which equal chunks of a row are told from different ones: Long [R, M, K] -> Long [R, M].

    Exact: tokens are packed into 63 bits, as many as fit, and what has been packed is numbered anew before the rest.
    """
    num_rows, num_candidates, _ = chunks.shape
    token_bits = max(1, int(chunks.max()).bit_length())
    packed = max(1, (_ID_BITS - num_candidates.bit_length()) // token_bits)
    ids = chunks.new_zeros((num_rows, num_candidates))
    for part in chunks.split(packed, dim=-1):
        key = ids
        for token in part.unbind(-1):
            key = (key << token_bits) | token
        ordered, order = key.sort(dim=1)
        is_new = torch.zeros_like(ordered)
        is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        ids = torch.empty_like(ids).scatter_(1, order, is_new.cumsum(dim=1))
    return ids


def occurrences(ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """How often each candidate's chunk occurs, and whether this is its first occurrence.

    Args:
        ids: Long [R, M] of :func:`chunk_ids`.
        valid: Bool [R, M]; other candidates count for nothing.

    Returns:
        Long [R, M] and Bool [R, M].
    """
    num_rows, num_candidates = ids.shape
    counts = torch.zeros_like(ids).scatter_add_(1, ids, valid.long())
    position = torch.arange(num_candidates, device=ids.device).expand(num_rows, -1)
    earliest = torch.full_like(ids, num_candidates)
    earliest.scatter_reduce_(1, ids, position.where(valid, num_candidates), reduce="amin")
    return counts.gather(1, ids), (earliest.gather(1, ids) == position) & valid


def fitting(chunks: Tensor, begins: list[list[int]]) -> Tensor:
    """Which candidates begin with their row's known tokens: Long [R, M, K] -> Bool [R, M]."""
    longest = max(len(begin) for begin in begins)
    if not longest:
        return torch.ones(chunks.shape[:2], dtype=torch.bool, device=chunks.device)
    # -1 stands for a token that may be anything.
    padded = [begin + [-1] * (longest - len(begin)) for begin in begins]
    wanted = torch.tensor(padded, device=chunks.device).unsqueeze(1)
    return ((chunks[..., :longest] == wanted) | (wanted < 0)).all(dim=-1)
