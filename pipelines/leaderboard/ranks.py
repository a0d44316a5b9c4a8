"""Ranks that admit what the errors of the scores leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence

SIGNIFICANT = 1.959963984540054
"""Joint standard errors by which two scores differ at the 5 % level."""


def shared_ranks(scores: Sequence[tuple[float, float]]) -> list[int]:
    """The rank of each (score, standard error), higher scores first: one more than the rows significantly better.

    Rows that nothing better is significantly better than share a rank, so ranks may repeat and skip. The difference of
    two rows is compared with the root of their summed variances. They are scored on the same text, which makes the
    true error of their difference smaller in most cases: a paired comparison may tell apart what shares a rank here.

    The order of the rows does not matter.

    Raises:
        ValueError: a score or an error is not finite, or an error is negative.
    """
    for score, error in scores:
        if not (math.isfinite(score) and math.isfinite(error) and error >= 0):
            raise ValueError(f"{score} ± {error} is no score with an error")
    return [1 + sum(_is_better(other, row) for other in scores) for row in scores]


def _is_better(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return first[0] - second[0] > SIGNIFICANT * math.hypot(first[1], second[1])
