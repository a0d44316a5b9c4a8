"""Which points are not beaten: nobody is at least as good for at most the same cost, and better in one of the two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """For each (cost, score), whether no other point dominates it. Cost is to be low, score high.

    Equal points stand or fall together. A point with a missing or not finite number is never on the front and
    dominates nobody. The order of the points does not matter. Standard errors are not considered: two points on
    the front may differ by less than their errors: :func:`pareto_front_within_errors`.
    """
    complete = [
        (cost, -score, index)
        for index, (cost, score) in enumerate(points)
        if cost is not None and score is not None and math.isfinite(cost) and math.isfinite(score)
    ]
    front = [False] * len(points)
    best: tuple[float, float] | None = None
    for cost, negative_score, index in sorted(complete):
        # Sorted by cost, then by score downwards: a point is dominated exactly if somebody before it scores at
        # least as high, unless that one is the very same point.
        if best is None or negative_score < best[1] or (cost, negative_score) == best:
            best = (cost, negative_score)
            front[index] = True
    return front


def pareto_front_within_errors(values: Sequence[Floats], margins: Sequence[Floats]) -> list[bool]:
    """For each of n points, whether no other one beats it beyond the errors.

    To beat, a point must be better by more than the errors leave open (5 % level) in every column that has errors, and
    at least as good in the others, and better in one. So this front holds the plain one, and with it those that may
    belong to it.

    Args:
        values: of each column ``[n]``, higher being better; NaN where a point has none.
        margins: of each column ``[n, n]``, how far two values must be apart to differ at the 5 % level.
    """
    import numpy as np

    beaten = np.ones((len(values[0]), len(values[0])), dtype=bool)
    is_better = np.zeros_like(beaten)
    complete = np.ones(len(values[0]), dtype=bool)
    for column, margin in zip(values, margins, strict=True):
        complete &= np.isfinite(column)
        # gap[i, j]: what j is better by than i.
        with np.errstate(invalid="ignore"):
            gap = column[None, :] - column[:, None]
        beaten &= (gap > margin) | ((margin == 0) & (gap >= 0))
        is_better |= gap > 0
    beaten &= is_better & complete[None, :]
    return [bool(flag) for flag in complete & ~beaten.any(axis=1)]
