"""Brier-n and BrierLM from samples alone (CALM paper, section 4).

The Brier score of a distribution P at an outcome y is ``2 P(y) - sum_x P(x)^2`` (higher is better, strictly proper).
Neither term needs a likelihood: for independent x, x' ~ P, ``1{x = y}`` is unbiased for P(y) and ``1{x = x'}`` for the
collision probability ``sum_x P(x)^2``. Brier-n takes the n-gram of the next n tokens as the outcome.

Shape letters: S samples of a position, H tokens of a continuation, N n-gram lengths, X outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def brier_scores(samples: Integers, targets: Integers, ngram_lengths: Sequence[int] = (1, 2, 3, 4)) -> Floats:
    """Unbiased Brier-n of every position, from all pairs of its samples.

    ``2/S sum_s 1{x_s = y} - 2/(S(S-1)) sum_{s<s'} 1{x_s = x_s'}`` on the first n tokens: the U-statistic of the
    two-sample estimate, the one of least variance that S samples allow.

    Args:
        samples: ``[..., S, H]`` continuations drawn independently from the model, S at least 2.
        targets: ``[..., H]`` the true continuation.
        ngram_lengths: the n of Brier-n, none longer than H.

    Returns:
        ``[..., N]``, each in [-1, 2]; a single value may be negative although its mean is not.

    Raises:
        ValueError: shapes that do not fit, fewer than two samples, or an n-gram longer than the continuations.
    """
    num_samples, horizon = samples.shape[-2:]
    if targets.shape != (*samples.shape[:-2], horizon):
        raise ValueError(f"samples {samples.shape} and targets {targets.shape} do not belong together")
    if num_samples < 2:
        raise ValueError("the collision term needs at least two samples per position")
    if min(ngram_lengths) < 1 or max(ngram_lengths) > horizon:
        raise ValueError(f"n-gram lengths {tuple(ngram_lengths)} do not fit continuations of {horizon} tokens")
    # n-grams are equal if all their tokens up to the n-th are: a running AND over the tokens gives every n at once.
    hits = np.logical_and.accumulate(samples == targets[..., None, :], axis=-1)
    same = np.logical_and.accumulate(samples[..., :, None, :] == samples[..., None, :, :], axis=-1)
    match = hits.mean(axis=-2)
    collision = (same.sum(axis=(-3, -2)) - num_samples) / (num_samples * (num_samples - 1))
    scores: Floats = 2.0 * match - collision
    return scores[..., [n - 1 for n in ngram_lengths]]


def brierlm(components: Floats) -> Floats:
    """``100 * (product of Brier-n)^(1/N)`` over the last axis; 0 where any component is not positive.

    Without that rule two negative components would multiply to a positive score.
    """
    positive = (components > 0).all(axis=-1)
    logarithms = np.log(np.where(components > 0, components, 1.0))
    return np.where(positive, 100.0 * np.exp(logarithms.mean(axis=-1)), 0.0)


def expected_brier(model: Floats, truth: Floats) -> Floats:
    """Exact expectation of the Brier score of ``model`` when outcomes follow ``truth``; both ``[..., X]``.

    ``2 sum_x q(x) p(x) - sum_x p(x)^2``, greatest at p = q, where it is ``sum_x q(x)^2``.
    """
    expectation: Floats = (2.0 * truth * model - model**2).sum(axis=-1)
    return expectation
