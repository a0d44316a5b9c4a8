"""Which points are not beaten: nobody is at least as good for at most the same cost, and better in one of the two."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """For each (cost, score), whether no other point dominates it. Cost is to be low, score high.

    Equal points stand or fall together. A point with a missing or not finite number is never on the front and
    dominates nobody. The order of the points does not matter. Standard errors are not considered: two points on
    the front may differ by less than their errors.
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
