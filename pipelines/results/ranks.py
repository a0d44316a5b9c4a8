"""Ranks that admit what the errors of the scores leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.results.answers import CONFIDENCE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SIGNIFICANT = 1.959963984540054
"""Joint standard errors by which two scores differ at the 5 % level."""


Parts = Sequence[tuple[float, float]]
"""The components of one score in their order, each with its standard error."""


def shared_ranks(
    scores: Sequence[tuple[float, float]],
    margins: Floats | None = None,
    parts: Sequence[Parts] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[int]:
    """The rank of each (score, standard error), higher scores first: one more than the rows significantly better.

    ``margins [n, n]`` say how far two scores must be apart (:attr:`pipelines.results.pairing.Differences.margins`);
    unset, the difference of two rows is compared with the root of their summed variances. That is an upper error in
    most cases, because rows are scored on the same text: a paired comparison tells more of them apart.

    Two scores clipped to 0 say nothing of each other. With ``parts`` such rows are ordered by their components, Brier-1
    first, and the first component in which they differ significantly says which is better. ``seeds`` are how many each
    row stands for, one unless given.

    To be significantly better is not transitive, and errors of pairs differ, so a row might have fewer rows above it
    than one with a higher score. Ranks follow the scores nevertheless: no row's rank is better than that of a row with
    a higher score, and equal scores share a rank. So a rank is one more than the most rows that are significantly
    better than this row or than any that scores at least as high. Ranks may repeat and skip.

    The order of the rows does not matter.

    Raises:
        ValueError: a score or an error is not finite, or an error is negative.
    """
    import numpy as np

    for score, error in scores:
        if not (math.isfinite(score) and math.isfinite(error) and error >= 0):
            raise ValueError(f"{score} ± {error} is no score with an error")
    if not scores:
        return []
    values, own = np.array(scores, dtype=np.float64).T
    if margins is None:
        margins = SIGNIFICANT * np.hypot(own[:, None], own[None, :])
    # better[i, j]: row j is significantly better than row i.
    better = values[None, :] - values[:, None] > margins
    keys: list[tuple[float, ...]] = [(value,) for value in values]
    if parts is not None:
        counts = [1] * len(values) if seeds is None else seeds
        clipped = [row for row, value in enumerate(values) if value == 0]
        for row in clipped:
            keys[row] = (0.0, *(value for value, _ in parts[row]))
        if clipped:
            _, apart, _ = _first_telling([parts[row] for row in clipped], [counts[row] for row in clipped])
            better[np.ix_(clipped, clipped)] = apart < 0
    above = better.sum(axis=1)
    ranks = np.zeros(len(values), dtype=np.int64)
    order = sorted(range(len(keys)), key=lambda row: keys[row], reverse=True)
    ranks[order] = 1 + np.maximum.accumulate(above[order])
    for key in set(keys):
        ties = [row for row, other in enumerate(keys) if other == key]
        ranks[ties] = ranks[ties].max()
    return [int(rank) for rank in ranks]


def first_telling(first: Parts, second: Parts, seeds: tuple[int, int] = (1, 1)) -> tuple[int, float, float]:
    """The first component, from 1, in which two rows differ significantly; ``first`` minus ``second`` in it, with its
    error. ``(0, 0, 0)`` where none tells them apart. ``seeds`` are how many each row stands for."""
    number, apart, error = _first_telling([first, second], seeds)
    return int(number[0, 1]), float(apart[0, 1]), float(error[0, 1])


def _first_telling(parts: Sequence[Parts], seeds: Sequence[int]) -> tuple[NDArray[np.int64], Floats, Floats]:
    """``[n, n]`` :func:`first_telling` of any two rows.

    What seeds add to the error of a component is not kept apart from what documents do, so all of it counts as
    estimated from so few (:func:`evals.stats.freedom`).
    """
    import numpy as np
    from scipy.special import stdtrit

    rows = np.array(parts, dtype=np.float64)
    one_less = np.array(seeds) - 1
    number = np.zeros((len(rows), len(rows)), dtype=np.int64)
    found, error = np.zeros(number.shape), np.zeros(number.shape)
    for component in range(rows.shape[1]):
        values, own = rows[:, component].T
        apart = values[:, None] - values[None, :]
        whole = np.hypot(own[:, None], own[None, :])
        spread = np.where(one_less > 0, own**4 / np.maximum(one_less, 1), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            known = whole**4 / (spread[:, None] + spread[None, :])
        margin = whole * stdtrit(np.where(np.isnan(known), np.inf, known), 0.5 + CONFIDENCE / 2)
        telling = (number == 0) & (np.abs(apart) > margin)
        number[telling], found[telling], error[telling] = component + 1, apart[telling], whole[telling]
    return number, found, error
