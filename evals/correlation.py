"""How closely two scores of the same models go together, with confidence intervals.

The question users put to the paper's authors: does BrierLM rank models as cross-entropy does? (Section 4 reports
Pearson -0.966 and Spearman -0.991 for token models.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evals.brier import Floats
from evals.stats import NORMAL_QUANTILE

FEWEST = 4
"""The interval's width is 1 / sqrt(n - 3)."""


@dataclass(frozen=True)
class Correlation:
    """Correlation of n pairs, with 95 % intervals by Fisher's transformation."""

    num_pairs: int
    pearson: float
    pearson_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def correlate(first: Sequence[float], second: Sequence[float]) -> Correlation:
    """Pearson's and Spearman's correlation of paired values.

    The interval of Spearman's is wider by the factor of Bonett and Wright (2000), sqrt(1 + r^2 / 2); where the orders
    agree entirely it is taken as if two neighbours had changed places, since a handful of pairs proves no more. Both
    take the pairs as independent: checkpoints of one training are not, so theirs is an interval for this training.

    Raises:
        ValueError: unequal lengths, fewer than four pairs, values that are not finite, or a constant score.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"{len(first)} and {len(second)} values are not pairs")
    if len(x) < FEWEST:
        raise ValueError(f"a correlation with an interval needs {FEWEST} pairs or more, found {len(x)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a score is not finite")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError("one of the scores is the same for all models, so it goes with nothing")
    pearson = _pearson(x, y)
    spearman = _pearson(_ranks(x), _ranks(y))
    return Correlation(
        num_pairs=len(x),
        pearson=pearson,
        pearson_interval=_interval(pearson, len(x), 1.0),
        spearman=spearman,
        spearman_interval=_spearman_interval(spearman, len(x)),
    )


def _pearson(x: Floats, y: Floats) -> float:
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1.0, 1.0))


def _ranks(values: Floats) -> Floats:
    """1-based; equal values share the mean of their ranks."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Floats = last - (counts - 1) / 2
    return means[index]


def _spearman_interval(correlation: float, num_pairs: int) -> tuple[float, float]:
    nearest = 1 - 12 / (num_pairs * (num_pairs**2 - 1))
    inside = min(max(correlation, -nearest), nearest)
    low, high = _interval(inside, num_pairs, math.sqrt(1 + correlation**2 / 2))
    return min(low, correlation), max(high, correlation)


def _interval(correlation: float, num_pairs: int, factor: float) -> tuple[float, float]:
    if abs(correlation) == 1.0:
        return correlation, correlation
    half = NORMAL_QUANTILE * factor / math.sqrt(num_pairs - 3)
    centre = math.atanh(correlation)
    return math.tanh(centre - half), math.tanh(centre + half)
