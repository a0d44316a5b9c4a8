"""Where the laws of two families would meet beyond what was measured, and how far such predictions can be trusted.

A prediction is told apart from what was measured by the word *extrapolated*. What it is worth is tested where the truth
is known: each law is fitted without its family's largest budget and predicts the score there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.results.answers import CONFIDENCE
from pipelines.results.families import Models, budgets
from pipelines.results.law import Law, fit
from pipelines.results.noise import Noise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST_BUDGETS = 3
"""With fewer the law's bend is the prior's, and beyond the points nothing else decides."""
REACH = 1000.0
"""Times the largest budget: how far is looked."""
STEPS = 241


@dataclass(frozen=True)
class Meeting:
    """Two laws that would meet beyond the points of both."""

    family: str
    reference: str
    largest: float
    """The largest training FLOPs that either family was measured at."""
    compute: float | None
    """Training FLOPs at which they meet; None where they do not within :data:`REACH` times ``largest``."""
    low: float | None
    high: float | None
    """Ends of the 95 % interval, None for what lies beyond that."""
    share: float
    """Share of the bootstrap's replicates in which they meet within it."""


@dataclass(frozen=True)
class BackTest:
    """Scores at the largest budgets, predicted from the smaller ones."""

    held: int
    """Predictions whose 95 % interval held the score that was measured."""
    predictions: int


def meeting_of(family: Models, reference: Models, noise: Noise, laws: tuple[Law, Law]) -> Meeting | None:
    """Where a family that scores less at the largest common budget would reach the reference's score.

    None where one of the two has too few budgets, or the family is not below the reference there.
    """
    import numpy as np

    if min(_budgets(family), _budgets(reference)) < FEWEST_BUDGETS:
        return None
    ours, theirs = laws
    largest = max(ours.high, theirs.high)
    compute = np.geomspace(largest, REACH * largest, STEPS)
    gap = ours.score(compute) - theirs.score(compute)
    if gap[0, 0] >= 0:
        return None
    met = _first_crossing(np.log(compute), gap)
    tail = (1.0 - CONFIDENCE) / 2.0
    quantiles = np.quantile(met, [tail, 1.0 - tail], method="nearest")
    at, low, high = (None if np.isinf(value) else float(value) for value in (met[0], *quantiles))
    return Meeting(family.name, reference.name, largest, at, low, high, float(np.isfinite(met).mean()))


def back_test(families: Sequence[Models], noise: Noise) -> BackTest:
    """Predict the score at each family's largest budget from the others, where these are enough for a law."""
    held = [_holds(models, noise) for models in families if _budgets(models) > FEWEST_BUDGETS]
    return BackTest(sum(held), len(held))


def _budgets(models: Models) -> int:
    return budgets(models.used) if models.basis == "budgets" else 0


def _holds(models: Models, noise: Noise) -> bool:
    """Whether the prediction's interval holds the score of the family's dearest model."""
    import numpy as np

    compute = np.array([one.point.training_flops for one in models.used])
    scores, covariance = noise.scores[models.key], noise.covariances[models.key]
    law = fit(compute[:-1], scores[:, :-1], covariance[:-1, :-1], noise.prior_means)
    predicted = law.score(np.array(compute[-1]))
    # Documents are hard for the models behind the law and for the one that is predicted alike.
    error = (predicted - predicted[0]) - (scores[:, -1] - scores[0, -1])
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(error, [tail, 1.0 - tail])
    return bool(predicted[0] - high <= scores[0, -1] <= predicted[0] - low)


def _first_crossing(logarithms: Floats, gap: Floats) -> Floats:
    """``[R]`` the compute at which ``gap [R, S]`` first is not negative any more; infinity where it stays so."""
    import numpy as np

    above = gap >= 0
    first = np.argmax(above, axis=1)
    rows = np.arange(len(gap))
    before = np.maximum(first - 1, 0)
    start, end = gap[rows, before], gap[rows, first]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(end > start, -start / (end - start), 0.0)
    at = logarithms[before] + np.clip(share, 0.0, 1.0) * (logarithms[first] - logarithms[before])
    result: Floats = np.where(above.any(axis=1), np.exp(at), np.inf)
    return result
