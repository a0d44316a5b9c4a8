"""How much text and how many samples per position a wanted standard error takes, from one scored pilot.

The variance of BrierLM, linearised, has a part that only more documents reduce (documents differ, and the next word of
a text is a matter of chance too) and a part from sampling, which more samples per position reduce as well
(:mod:`evals.sampling_noise`). Both fall in proportion to the number of documents:

    ``SE^2 = (between + a/S + b/(S(S-1))) / D``
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evals.protocol import EvaluationError
from evals.stats import brierlm_gradient, delta_standard_errors
from evals.sums import ScoredSums

SAMPLE_COUNTS = (2, 4, 8, 16, 32)
FEWEST_DOCUMENTS = 10
"""Below this many, a standard error between documents is itself too uncertain to rely on."""


@dataclass(frozen=True)
class VarianceParts:
    """Variance of BrierLM, in squared points, times the number of documents."""

    between: float
    """Left with any number of samples per position."""
    per_sample: float
    """a: falls as 1/S."""
    per_pair: float
    """b: falls as 1/(S(S-1)); it may come out below zero by chance."""
    positions_per_document: float

    def standard_error(self, num_documents: float, num_samples: int) -> float:
        """Standard error of BrierLM, in points."""
        sampling = self.per_sample / num_samples + self.per_pair / (num_samples * (num_samples - 1))
        return math.sqrt((self.between + max(sampling, 0.0)) / num_documents)


@dataclass(frozen=True)
class SampleSize:
    """One way to reach the wanted error."""

    num_samples: int
    """Per position."""
    num_documents: int
    num_positions: int
    num_continuations: int
    """Positions times samples."""
    standard_error: float
    """Expected, in points of BrierLM."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def variance_parts(pilot: ScoredSums) -> VarianceParts:
    """What the variance of the pilot's BrierLM consists of.

    Rows of the pilot that are windows, because its documents were few, are taken for documents.

    Raises:
        EvaluationError: the pilot's BrierLM is 0, or its samples are too few to tell sampling from text.
    """
    sums, noise = pilot.sums, pilot.noise
    gradient, error = brierlm_gradient(sums.means), delta_standard_errors(sums)[1]
    if gradient is None or error is None:
        raise EvaluationError(
            "the pilot's BrierLM is 0, and nothing follows from it about other sizes: score more documents, or more "
            "samples per position"
        )
    if noise is None:
        raise EvaluationError(
            f"a pilot with {pilot.num_samples} samples per position ({pilot.estimator}) cannot tell the variance of "
            "sampling from that of the text: use four or more (evaluation.num_samples)"
        )
    num_documents, num_positions = len(sums.counts), float(sums.counts.sum())
    scale = num_documents / num_positions**2
    sampling = float(gradient @ noise.covariance(pilot.num_samples) @ gradient) * scale
    return VarianceParts(
        between=max(num_documents * error**2 - sampling, 0.0),
        per_sample=float(gradient @ noise.per_sample @ gradient) * scale,
        per_pair=float(gradient @ noise.per_pair @ gradient) * scale,
        positions_per_document=num_positions / num_documents,
    )


def sample_sizes(
    pilot: ScoredSums, wanted_error: float, sample_counts: Sequence[int] = SAMPLE_COUNTS
) -> tuple[SampleSize, ...]:
    """How many documents like the pilot's a standard error of ``wanted_error`` takes, for each number of samples.

    The pilot should have some hundred documents: the relative error of a predicted standard error is about
    ``1/sqrt(2D)``, more where few positions make the score.

    Args:
        wanted_error: standard error of BrierLM, in points.
        sample_counts: numbers of samples per position to choose from, each at least 2. With exact probabilities there
            is nothing to choose, and the answer is for the pilot's.

    Raises:
        EvaluationError: as :func:`variance_parts`.
        ValueError: an error that is not positive, or fewer than two samples.
    """
    if not (wanted_error > 0 and np.isfinite(wanted_error)):
        raise ValueError(f"the wanted error {wanted_error} must be positive")
    if not sample_counts or min(sample_counts) < 2:
        raise ValueError(f"every position needs at least two samples, found {tuple(sample_counts)}")
    parts = variance_parts(pilot)
    sizes = []
    for num_samples in (pilot.num_samples,) if pilot.estimator == "exact" else sample_counts:
        wanted = (parts.standard_error(1, num_samples) / wanted_error) ** 2
        num_documents = max(FEWEST_DOCUMENTS, math.ceil(wanted))
        num_positions = round(num_documents * parts.positions_per_document)
        sizes.append(
            SampleSize(
                num_samples=num_samples,
                num_documents=num_documents,
                num_positions=num_positions,
                num_continuations=num_positions * num_samples,
                standard_error=parts.standard_error(num_documents, num_samples),
            )
        )
    return tuple(sizes)
