"""Shares of a step in pieces that fit into memory: the same rows, noise and mean, summed in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from calm_bench.row_noise import Rows
from calm_bench.training.workers import Share


def in_pieces(shares: Sequence[Share], rows: int | None) -> list[Share]:
    """``shares`` in pieces of at most ``rows`` sequences, or one more where workers have unequal numbers of them.

    Every worker has as many pieces, since those that hold a model together must all compute at once: where a share
    has fewer rows than others have pieces, its last one is computed again and does not count.

    Args:
        rows: unset leaves the shares whole.
    """
    if rows is None or not shares:
        return list(shares)
    # The first micro-batch is the longest, of held-out text too; workers' shares of it differ by a row at most.
    whole = shares[0].rows.count == shares[0].rows.total
    longest = shares[0].rows.total if whole else -(-shares[0].rows.total // shares[0].workers)
    number = -(-longest // rows)
    return [piece for share in shares for piece in _pieces(share, number)] if number > 1 else list(shares)


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
