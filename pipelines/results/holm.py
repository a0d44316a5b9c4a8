"""Holm's correction (Holm 1979, Scandinavian Journal of Statistics 6): many statements, together right with 95 %.

Of m families without a difference one in twenty differs at the 5 % level by chance, each. Holm's step-down procedure
keeps the probability that any of the statements "these two differ" is wrong at 5 % for all of them together, whatever
depends on what, and refuses fewer true ones than dividing 5 % by m does.
"""

from __future__ import annotations

from collections.abc import Sequence

LEVEL = 0.05


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in their order: each to be compared with the level itself."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
