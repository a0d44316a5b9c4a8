"""How the scores of all models might have come out otherwise: the bootstrap's draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.results.families import Key, Measured, Models
from pipelines.results.pairing import usable_replicates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """Scores of every family's usable points, R times, and what they were drawn by."""

    scores: dict[Key, Floats]
    """``[R, P]`` by family; the first row is the data as they are."""
    covariances: dict[Key, Floats]
    """``[P, P]``"""
    prior_means: Floats
    """``[R]`` of the law's exponent."""
    num_joint: int
    """Models for which the documents' part is drawn jointly; for the others by itself, which errs on the large side."""
    num_models: int
    seed_error: float | None
    """Standard deviation between seeds, from the rows that have several; None where none has."""
    misfit: float
    freedom: int
    """Degrees of freedom behind ``misfit``; 0 if it is not known."""


def noise_of(families: Sequence[Models], num_replicates: int, seed: int = 0) -> Noise:
    """Draw all scores ``num_replicates - 1`` times around what they are."""
    import numpy as np

    from pipelines.results.law import PRIOR_ERROR, misfit

    generator = np.random.default_rng(seed)
    points = [one for models in families for one in models.used]
    seed_error = _seed_error(points)
    own = np.array([_own_error(one, seed_error) for one in points])
    parts, num_joint = _document_parts(points)
    slices: dict[Key, slice] = {}
    end = 0
    for models in families:
        slices[models.key] = slice(end, end + len(models.used))
        end += len(models.used)
    known = parts @ parts.T + np.diag(own**2)
    values = np.array([one.point.score for one in points])
    compute = np.array([one.point.training_flops for one in points])
    scatter, freedom = misfit([(compute[where], values[where], known[where, where]) for where in slices.values()])
    draws = num_replicates - 1
    shared = generator.standard_normal((draws, parts.shape[1])) @ parts.T
    single = own * generator.standard_normal((draws, len(points)))
    # The scatter is an estimate too: its own distribution gives Student's tails.
    widen = np.sqrt(freedom / generator.chisquare(freedom, (draws, 1))) if freedom else 1.0
    single = single + scatter * widen * generator.standard_normal((draws, len(points)))
    scores = np.vstack([values, values + shared + single]) if len(points) else np.zeros((num_replicates, 0))
    covariance = known + scatter**2 * np.eye(len(points))
    prior_means = np.concatenate([[0.0], PRIOR_ERROR * generator.standard_normal(draws)])
    return Noise(
        scores={key: scores[:, where] for key, where in slices.items()},
        covariances={key: covariance[where, where] for key, where in slices.items()},
        prior_means=prior_means,
        num_joint=num_joint,
        num_models=len(points),
        seed_error=seed_error,
        misfit=scatter,
        freedom=freedom,
    )


def _document_parts(points: Sequence[Measured]) -> tuple[Floats, int]:
    """``[P, G]`` whose products sum to the covariance of the scores over documents, and for how many that is joint.

    Joint are the models that carry replicates over the same documents, the documents that most of them have.
    """
    import numpy as np

    from evals.replicates import deviations

    found = [usable_replicates(one.replicates) for one in points]
    kinds = Counter((one.documents, len(one.scores)) for one in found if one is not None)
    joint, count = max(kinds.items(), key=lambda item: (item[1], item[0]), default=(("", 0), 0))
    own = np.diag([one.document_error for one in points])
    shared = np.zeros((len(points), joint[1]))
    for index, one in enumerate(found):
        if count > 1 and one is not None and (one.documents, len(one.scores)) == joint:
            shared[index] = deviations(one.scores)
            own[index, index] = 0.0
    return np.hstack([shared, own]), count if count > 1 else 0


def _seed_error(points: Sequence[Measured]) -> float | None:
    """Standard deviation between the seeds of a configuration, pooled over those that have several."""
    several = [(one.seeds, one.seed_error) for one in points if one.seeds > 1 and one.seed_error is not None]
    if not several:
        return None
    return math.sqrt(
        sum((seeds - 1) * seeds * error**2 for seeds, error in several) / sum(seeds - 1 for seeds, _ in several)
    )


def _own_error(measured: Measured, seed_error: float | None) -> float:
    """What a model's training adds to the error of its score."""
    if seed_error is None:
        return 0.0
    return seed_error / math.sqrt(measured.seeds)
