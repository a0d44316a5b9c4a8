"""Ranks that admit what the errors of the scores leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SIGNIFICANT = 1.959963984540054
"""Joint standard errors by which two scores differ at the 5 % level."""


def shared_ranks(scores: Sequence[tuple[float, float]], errors: Floats | None = None) -> list[int]:
    """The rank of each (score, standard error), higher scores first: one more than the rows significantly better.

    ``errors [n, n]`` are those of the differences, where documents were paired; unset, the difference of two rows is
    compared with the root of their summed variances. That is an upper error in most cases, because rows are scored on
    the same text: a paired comparison tells more of them apart.

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
    joint = np.hypot(own[:, None], own[None, :]) if errors is None else errors
    # better[i, j]: row j is significantly better than row i.
    better = values[None, :] - values[:, None] > SIGNIFICANT * joint
    above = better.sum(axis=1)
    ranks = np.zeros(len(values), dtype=np.int64)
    order = np.argsort(-values, kind="stable")
    ranks[order] = 1 + np.maximum.accumulate(above[order])
    for value in np.unique(values):
        ties = values == value
        ranks[ties] = ranks[ties].max()
    return [int(rank) for rank in ranks]
