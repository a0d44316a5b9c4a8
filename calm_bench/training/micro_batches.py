"""Shares of a step in pieces that fit into memory: the same rows, noise and mean, summed in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil

from calm_bench.row_noise import Rows
from calm_bench.training.workers import Share


def in_pieces(shares: Sequence[Share], rows: int | None, micro_batch: int, workers: int) -> list[Share]:
    """``shares`` in pieces of at most ``rows`` sequences, or one more where workers have unequal numbers of them.

    Every one of several workers has as many pieces of a share, since those that hold a model together must all compute
    at once: where a share has fewer rows than others have pieces, its last one is computed again and does not count.

    Args:
        rows: unset leaves the shares whole.
        micro_batch: sequences of a whole micro-batch as it is configured; the last one of held-out text may have fewer.
        workers: how many have shares.
    """
    if rows is None or not shares:
        return list(shares)
    # Of what this worker has alone, others would not know how many pieces it makes.
    longest = ceil(micro_batch / shares[0].workers)
    number = ceil(longest / rows)
    if number == 1:
        return list(shares)
    if workers == 1:
        return [piece for share in shares for piece in _pieces(share, ceil(share.rows.count / rows))]
    return [piece for share in shares for piece in _pieces(share, number)]


def _pieces(share: Share, number: int) -> list[Share]:
    there = min(number, share.rows.count)
    bounds = [share.rows.count * index // there for index in range(there + 1)]
    pieces = [
        replace(
            share,
            tokens=share.tokens[start:stop],
            rows=Rows(share.rows.start + start, share.rows.start + stop, share.rows.total),
            is_piece=True,
        )
        for start, stop in pairwise(bounds)
    ]
    return pieces + [replace(pieces[-1], counts=False)] * (number - there)
