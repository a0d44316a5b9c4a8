"""Score against compute as a saturating power law, fitted to few points with errors that may be correlated.

The law is ``score = limit - a C^-b``, written as ``level + slope (1 - C^-b) / b`` with C in units of the points'
geometric mean, so that it is the logarithm at b = 0 and goes on smoothly to b < 0, where the score rises faster than
that. A model far below its limit needs this: its points lie on a line or bend upwards, and a law forced to saturate
would misplace them. The slope is never negative.

With errors as large as here, few points do not determine b. It has a normal prior of mean 0 and standard deviation 1,
from a straight line (-1) to early saturation (1). Every bootstrap replicate draws both the scores and the prior's
mean, so with two points the band is what all these laws leave open between them, and with many the prior is forgotten.

Shape letters: P points, R replicates (the first is the data as they are), B exponents tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXPONENTS: Floats = np.linspace(-2.0, 3.0, 101).round(2)
PRIOR_ERROR = 1.0
PARAMETERS = 3


@dataclass(frozen=True)
class Law:
    """R fitted laws on one range of compute, the first of them to the data as they are."""

    unit: float
    """The compute at which the score is ``level``."""
    low: float
    high: float
    """Compute of the cheapest and of the dearest point."""
    level: Floats
    """``[R]``"""
    slope: Floats
    """``[R]``, at least 0: what a factor e of compute adds at ``unit``."""
    exponent: Floats
    """``[R]`` b."""

    def score(self, compute: Floats) -> Floats:
        """``[R, ...]`` at ``compute [...]``."""
        x = np.log(np.asarray(compute, dtype=np.float64) / self.unit)
        shape = (-1,) + (1,) * x.ndim
        level, slope, exponent = (part.reshape(shape) for part in (self.level, self.slope, self.exponent))
        result: Floats = level + slope * _rise(x[None], exponent)
        return result

    @property
    def top(self) -> Floats:
        """``[R]`` the score at the dearest point."""
        return self.score(np.array(self.high))

    def needed(self, score: Floats) -> tuple[Floats, Floats]:
        """Bounds, each ``[R]``, on the compute that reaches ``score [R]``; equal where it is within the points' range.

        Below the cheapest point's score: 0 and its compute. Above the dearest point's: its compute and infinity.
        """
        is_flat = self.slope <= 0
        # A flat law reaches no other score, and divisions by its slope must not be.
        rise = (score - self.level) / np.where(is_flat, 1.0, self.slope)
        bent = np.where(np.abs(self.exponent) < 1e-9, 1.0, self.exponent)
        with np.errstate(divide="ignore", over="ignore"):
            logarithm = np.where(np.abs(self.exponent) < 1e-9, rise, -np.log(np.maximum(1.0 - bent * rise, 0.0)) / bent)
            compute = self.unit * np.exp(logarithm)
        own = self.low if self.low == self.high else 0.0
        compute = np.where(
            is_flat, np.where(score > self.level, np.inf, np.where(score < self.level, 0.0, own)), compute
        )
        # Rounding must not push the end of the range out of it.
        compute = np.where(np.isclose(compute, self.high, rtol=1e-9), self.high, compute)
        compute = np.where(np.isclose(compute, self.low, rtol=1e-9), self.low, compute)
        at_least = np.where(compute > self.high, self.high, np.where(compute < self.low, 0.0, compute))
        at_most = np.where(compute > self.high, np.inf, np.where(compute < self.low, self.low, compute))
        return at_least, at_most


def fit(compute: Floats, scores: Floats, covariance: Floats, prior_means: Floats | None = None) -> Law:
    """The laws through ``scores [R, P]`` at ``compute [P]``, by generalised least squares with ``covariance [P, P]``.

    ``prior_means [R]``: of the exponent; 0 where unset. One point gives a flat law on a range of one point.

    Raises:
        ValueError: numbers that are not finite, or compute that is not positive.
    """
    compute, scores = np.asarray(compute, dtype=np.float64), np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if not (np.isfinite(compute).all() and (compute > 0).all() and np.isfinite(scores).all()):
        raise ValueError("a law needs finite scores at positive, finite compute")
    unit = float(np.exp(np.log(compute).mean()))
    prior = np.zeros(len(scores)) if prior_means is None else prior_means
    level, slope, exponent, _ = _best(np.log(compute / unit), scores, _whitening(covariance), prior)
    return Law(unit, float(compute.min()), float(compute.max()), level, slope, exponent)


def misfit(families: Sequence[tuple[Floats, Floats, Floats]]) -> tuple[float, int]:
    """What models scatter around their laws beyond the errors of their scores: standard deviation, degrees of freedom.

    ``families``: of each, compute ``[P]``, scores ``[P]`` and their covariance ``[P, P]``. The scatter is one for all,
    such that the weighted squares of the residuals sum to their degrees of freedom (Paule and Mandel 1982). With no
    family of more than three points it cannot be known: 0 and 0.
    """
    usable = [family for family in families if len(family[0]) > PARAMETERS]
    freedom = sum(len(compute) - PARAMETERS for compute, _, _ in usable)
    if not freedom:
        return 0.0, 0
    spread = max(float(np.ptp(scores)) for _, scores, _ in usable)

    def squares(scatter: float) -> float:
        total = 0.0
        for compute, scores, covariance in usable:
            whitening = _whitening(covariance + scatter**2 * np.eye(len(compute)))
            x = np.log(compute / np.exp(np.log(compute).mean()))
            total += float(_best(x, scores[None], whitening, np.zeros(1))[3][0])
        return total

    low, high = 0.0, spread
    if spread == 0 or squares(low) <= freedom:
        return 0.0, freedom
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if squares(middle) > freedom else (low, middle)
    return high, freedom


def _rise(x: Floats, exponent: Floats) -> Floats:
    """``(1 - e^(-b x)) / b``, which is x at b = 0."""
    flat = np.abs(exponent) < 1e-9
    safe = np.where(flat, 1.0, exponent)
    result: Floats = np.where(flat, x, -np.expm1(-safe * x) / safe)
    return result


def _whitening(covariance: Floats) -> Floats:
    """The matrix that makes errors of this ``covariance`` independent and of size 1."""
    diagonal = np.diag(covariance)
    # Errors of 0, or fully shared ones, would leave nothing to divide by.
    floor = max(1e-6 * float(diagonal.max(initial=0.0)), 1e-12)
    inverse: Floats = np.linalg.inv(np.linalg.cholesky(covariance + floor * np.eye(len(covariance))))
    return inverse


def _best(x: Floats, scores: Floats, whitening: Floats, prior: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Level, slope, exponent and the weighted sum of squared residuals of the best law, each ``[R]``."""
    data = scores @ whitening.T
    ones = whitening.sum(axis=1)
    flat_level = data @ ones / (ones @ ones)
    rest = data - flat_level[:, None] * ones
    flat = (rest**2).sum(axis=1)
    if len(x) < 2 or np.ptp(x) == 0:
        return flat_level, np.zeros(len(data)), prior, flat
    rises = _rise(x[None, :], EXPONENTS[:, None]) @ whitening.T
    # The part of each law's rise that is no level already, as a unit vector: its share of the data is what the
    # law explains.
    shift = rises @ ones / (ones @ ones)
    direction = rises - shift[:, None] * ones
    length = np.linalg.norm(direction, axis=1)
    explained = np.maximum(rest @ (direction / length[:, None]).T, 0.0)
    squares = np.maximum(flat[:, None] - explained**2, 0.0)
    chosen = np.argmin(squares + ((EXPONENTS - prior[:, None]) / PRIOR_ERROR) ** 2, axis=1)
    everyone = np.arange(len(data))
    slope = explained[everyone, chosen] / length[chosen]
    return flat_level - shift[chosen] * slope, slope, EXPONENTS[chosen], squares[everyone, chosen]
