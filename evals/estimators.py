"""Ways to estimate Brier-n at a position; all have the same expectation, so that their values may be compared.

``E[2 P(y) - sum_x P(x)^2]`` needs the probability of the true n-gram y, the match, and the probability that two
continuations agree, the collision.

``two-sample``
    Two continuations, as in the paper: hits of the target, and whether the two are equal.
``all-pairs``
    The same averaged over all pairs of S continuations (:func:`evals.brier.brier_scores`).
``teacher-forced``
    The reference implementation's where an n-gram takes several chunks and every chunk of the text is a position. The
    continuations serve the collision only. For the match, each chunk of the n-gram is drawn once more from the true
    text before it, as the first chunk of the position where it begins, and all must hit: the chunks' probabilities
    multiply to that of the n-gram.
``two-prefix``
    The reference implementation's for token models: the exact match, and two continuations for the collision, of which
    the last token is not drawn but taken from its exact distribution.
``exact``
    For token models. The match is a product of probabilities of the text itself. The collision factorises along an
    n-gram: with ``C(c) = sum_v p(v | c)^2`` and tokens drawn in proportion to ``p(v | c)^2`` instead of ``p(v | c)``,
    ``E[C(c) C(c x_1) ... C(c x_1..x_{n-1})] = sum_x P(x)^2``: every draw counts, where a pair of ordinary samples
    seldom agrees, so that two such paths are enough, and Brier-1 needs no draw at all.

Shape letters: W windows, P positions, S samples, H tokens of the longest n-gram, N n-gram lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from evals.brier import Floats, Integers, brier_scores
from evals.protocol import EvaluationError, Protocol
from evals.samplers import Sampler, Traces, continue_windows, has_probabilities
from evals.sampling_noise import SamplingNoise, noise_of_means, noise_of_pairs

PATHS = 2
"""Paths that the exact estimator draws. What is left of sampling is small beside the variation from target to target,
so more paths would cost more than they tell; two, because one would not say how small."""

Estimator = Literal["exact", "all-pairs", "two-sample", "teacher-forced", "two-prefix"]


@dataclass(frozen=True)
class PositionScores:
    """Brier-n of every position of a batch, and how much of it is the chance of sampling."""

    scores: Floats
    """``[W, P, N]``"""
    noise: SamplingNoise | None
    """None where the samples are too few to tell."""


def estimator_for(sampler: Sampler, protocol: Protocol, wanted: Estimator | None = None) -> Estimator:
    """The estimator to use: ``wanted``, or the best that ``sampler`` allows; under ``paper``, the paper's.

    Raises:
        EvaluationError: an unknown name, or one that needs probabilities from a model without.
    """
    exact = has_probabilities(sampler)
    if wanted is None:
        if protocol.name == "paper":
            one_chunk = sampler.chunk_size >= protocol.horizon
            return "two-prefix" if exact else "two-sample" if one_chunk else "teacher-forced"
        return "exact" if exact else "all-pairs"
    if wanted not in get_args(Estimator):
        raise EvaluationError(f"unknown estimator {wanted!r}; there are {', '.join(get_args(Estimator))}")
    if wanted in ("exact", "two-prefix") and not exact:
        raise EvaluationError(
            f"the estimator {wanted!r} needs a model's probabilities, which this one does not have; all-pairs and "
            "two-sample need none"
        )
    if wanted == "teacher-forced" and protocol.position_stride != sampler.chunk_size:
        raise EvaluationError(
            f"the estimator 'teacher-forced' needs a position at every chunk of {sampler.chunk_size} tokens, as the "
            f"protocol of the paper has; here they are {protocol.position_stride} tokens apart"
        )
    return wanted


def samples_used(estimator: Estimator, num_samples: int) -> int:
    """S: continuations drawn at every position where the protocol allows ``num_samples``."""
    if estimator == "exact":
        return PATHS
    return num_samples if estimator == "all-pairs" else 2


def value_of_a_match(estimator: Estimator, num_samples: int) -> float:
    """What one sample that happens to equal its target adds to a position's score; 0 if matches are not counted."""
    return 0.0 if estimator == "exact" else 2.0 / samples_used(estimator, num_samples)


def score_windows(
    sampler: Sampler,
    windows: Integers,
    positions: Sequence[int],
    num_samples: int,
    ngram_lengths: Sequence[int],
    seeds: Sequence[int],
    estimator: Estimator,
) -> PositionScores:
    """Brier-n of the n-grams after ``windows[w, :t]`` for every position t; ``windows`` hold these n-grams too.

    Raises:
        EvaluationError: the sampler returned what are no tokens of its vocabulary.
        NotFinite: the model computed NaN.
    """
    horizon, num_samples = ngram_lengths[-1], samples_used(estimator, num_samples)
    targets = windows[:, np.array(positions)[:, None] + np.arange(horizon)]
    if estimator in ("all-pairs", "two-sample"):
        samples = continue_windows(sampler, windows, positions, num_samples, horizon, seeds, targets)
        scores = brier_scores(samples, targets, ngram_lengths)
        return PositionScores(scores, noise_of_pairs(samples, targets, ngram_lengths) if num_samples >= 4 else None)
    if estimator == "teacher-forced":
        return PositionScores(_teacher_forced(sampler, windows, positions, targets, ngram_lengths, seeds), None)
    if not has_probabilities(sampler):
        raise EvaluationError(f"the estimator {estimator!r} needs a model's probabilities")
    squared = estimator == "exact"
    traces = sampler.trace_windows(windows, positions, num_samples, horizon, seeds, squared)
    if not (np.isfinite(traces.target).all() and np.isfinite(traces.collision).all()):
        from calm_bench.finite import NotFinite

        raise NotFinite("the model's probabilities are not finite")
    if not squared:
        return PositionScores(two_prefix_scores(traces, ngram_lengths), None)
    collisions = path_collisions(traces, ngram_lengths)
    match = traces.target.cumprod(axis=-1)[..., [n - 1 for n in ngram_lengths]]
    return PositionScores(2.0 * match - collisions.mean(axis=-2), noise_of_means(collisions))


def path_collisions(traces: Traces, ngram_lengths: Sequence[int]) -> Floats:
    """``[W, P, S, N]``, each an unbiased estimate of ``sum_x P(x)^2`` over n-grams x, from ``squared`` traces."""
    collisions: Floats = traces.collision.cumprod(axis=-1)[..., [n - 1 for n in ngram_lengths]]
    return collisions


def two_prefix_scores(traces: Traces, ngram_lengths: Sequence[int]) -> Floats:
    """``[W, P, N]`` from traces of S ordinary samples, all pairs of them.

    With x the first n - 1 tokens of a sample, ``1{x = x'} sum_v p(v | x)^2`` is unbiased for the collision probability
    of n-grams.
    """
    num_samples = traces.collision.shape[-2]
    same = traces.tokens[..., :, None, :] == traces.tokens[..., None, :, :]
    begun = np.ones((*same.shape[:-1], 1), dtype=bool)
    agree = np.concatenate([begun, np.logical_and.accumulate(same, axis=-1)], axis=-1)
    collided = (agree * traces.collision[..., :, None, :]).sum(axis=(-3, -2)) - traces.collision.sum(axis=-2)
    scores: Floats = 2.0 * traces.target.cumprod(axis=-1) - collided / (num_samples * (num_samples - 1))
    return scores[..., [n - 1 for n in ngram_lengths]]


def _teacher_forced(
    sampler: Sampler,
    windows: Integers,
    positions: Sequence[int],
    targets: Integers,
    ngram_lengths: Sequence[int],
    seeds: Sequence[int],
) -> Floats:
    """``[W, P, N]``; ``positions`` are K apart."""
    chunk_size, horizon = sampler.chunk_size, targets.shape[-1]
    num_chunks = -(-horizon // chunk_size)
    more = [positions[-1] + chunk * chunk_size for chunk in range(1, num_chunks)]
    starts = [*positions, *more]
    # Only its first chunk is compared with the text; further ones count while both samples agree.
    first = windows[:, np.array(starts)[:, None] + np.arange(min(chunk_size, horizon))]
    samples = continue_windows(sampler, windows, starts, 2, horizon, seeds, first)
    count = len(positions)
    # [W, P, S, num_chunks * K]: the first chunks that were drawn at this position and at the following ones.
    forced = np.concatenate([samples[:, c : c + count, :, :chunk_size] for c in range(num_chunks)], axis=-1)
    hits = np.logical_and.accumulate(forced[..., :horizon] == targets[..., None, :], axis=-1)
    agree = np.logical_and.accumulate(samples[:, :count, 0] == samples[:, :count, 1], axis=-1)
    scores: Floats = hits.sum(axis=-2) - agree.astype(np.float64)
    return scores[..., [n - 1 for n in ngram_lengths]]
