"""How sure a result of lm-eval is: errors between documents, and Monte Carlo errors of scores that were sampled.

Shape letters: D documents, C choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evals.brier import Floats, Integers

PERTURBATIONS = 1000


def mean_error(values: Sequence[float], documents: Sequence[str] | None = None) -> float | None:
    """Standard error of the mean over documents; None of fewer than two.

    Where all of them are right or all are wrong, the sample shows no spread: as if one had not been so.

    Args:
        documents: what each value is of; values of equal ones are one value, their sum a cluster's (the sandwich
            estimator of a mean over clusters of unequal sizes). Unset, all differ.
    """
    number = {document: index for index, document in enumerate(dict.fromkeys(documents or ()))}
    if documents is not None and len(number) < len(values):
        if len(number) < 2:
            return None
        if set(values) in ({0}, {1}):
            return 1 / len(number)
        groups = [number[document] for document in documents]
        totals = np.bincount(groups, weights=np.asarray(values, dtype=np.float64) - np.mean(values))
        return float(np.sqrt((totals**2).sum() * len(number) / (len(number) - 1)) / len(values))
    if len(values) < 2:
        return None
    if set(values) in ({0}, {1}):
        return 1 / len(values)
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def ratio_error(
    numerators: Sequence[float], denominators: Sequence[float], documents: Sequence[str] | None = None
) -> float | None:
    """Standard error over documents of ``sum numerators / sum denominators`` (delta method); None of fewer than two.

    Args:
        documents: as of :func:`mean_error`.
    """
    if documents is not None and len(set(documents)) < len(documents):
        number = {document: index for index, document in enumerate(dict.fromkeys(documents))}
        groups = [number[document] for document in documents]
        numerators = np.bincount(groups, weights=numerators).tolist()
        denominators = np.bincount(groups, weights=denominators).tolist()
    if len(numerators) < 2:
        return None
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    residuals = top - top.sum() / bottom.sum() * bottom
    return float(np.std(residuals, ddof=1) * math.sqrt(len(top)) / bottom.sum())


def accuracy_error(
    scores: Sequence[Floats],
    errors: Sequence[Floats],
    gold: Integers,
    seed: int = 0,
    copies: Sequence[int] | None = None,
) -> float:
    """How far accuracy would move with other draws on the same documents (one standard deviation).

    Each score is moved by normal noise of its own Monte Carlo error, ``PERTURBATIONS`` times; r_i is the share of these
    in which document i is answered correctly, and the documents' draws are independent, so the variance is
    ``sum_i r_i (1 - r_i) / D^2``. Draws that choices have in common make it smaller than this says.

    The standard error over documents holds this noise already: each document has draws of its own.

    Args:
        scores: of each document ``[C]``.
        errors: their Monte Carlo errors.
        gold: ``[D]``, the right choice of each.
        copies: ``[D]``, how often each was asked, which was answered once; unset, each was asked once.
    """
    random = np.random.default_rng(seed)
    variance, times = 0.0, copies or [1] * len(scores)
    for values, deviations, right, count in zip(scores, errors, gold.tolist(), times, strict=True):
        moved = values + deviations * random.standard_normal((PERTURBATIONS, len(values)))
        share = float((moved.argmax(axis=1) == right).mean())
        variance += count**2 * share * (1 - share)
    return math.sqrt(variance) / sum(times)
