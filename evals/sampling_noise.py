"""The part of a score's variance that more samples per position would take away.

A position's score from S samples is, given the text, random with a variance of ``a/S + b/(S(S-1))``: a mean of S
independent values has b = 0, a U-statistic of pairs both (Hoeffding 1948). Both matrices over the N components are
estimated without bias from the samples that were drawn anyway, and summed over positions, whose samples are
independent of each other.

Shape letters: S samples, H tokens, N n-gram lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from evals.brier import Floats, Integers


@dataclass(frozen=True)
class SamplingNoise:
    """Covariance of the components' sums over positions that is due to sampling."""

    per_sample: Floats
    """``[N, N]``, a."""
    per_pair: Floats
    """``[N, N]``, b."""

    def covariance(self, num_samples: int) -> Floats:
        """``[N, N]`` with ``num_samples`` samples at every position."""
        covariance: Floats = self.per_sample / num_samples + self.per_pair / (num_samples * (num_samples - 1))
        return covariance

    def __add__(self, other: SamplingNoise) -> SamplingNoise:
        return SamplingNoise(self.per_sample + other.per_sample, self.per_pair + other.per_pair)


def total_noise(parts: Sequence[SamplingNoise | None]) -> SamplingNoise | None:
    """The noise of all parts together; None if one of them is unknown."""
    known = [part for part in parts if part is not None]
    return reduce(SamplingNoise.__add__, known) if known and len(known) == len(parts) else None


def noise_of_means(values: Floats) -> SamplingNoise:
    """Noise of positions scored by the mean of independent ``values [..., S, N]``, S at least 2."""
    centred = values - values.mean(axis=-2, keepdims=True)
    flat = centred.reshape(-1, values.shape[-1])
    return SamplingNoise(flat.T @ flat / (values.shape[-2] - 1), np.zeros((values.shape[-1],) * 2))


def noise_of_pairs(samples: Integers, targets: Integers, ngram_lengths: Sequence[int]) -> SamplingNoise:
    """Noise of positions scored by :func:`evals.brier.brier_scores`, S at least 4.

    With ``u_st = 1{x_s = y} + 1{x_t = y} - 1{x_s = x_t}``, the variance of the mean over pairs is
    ``4(S-2)/(S(S-1)) z_1 + 2/(S(S-1)) z_2`` where z_2 = E[u_12 u_12] - E[u_12 u_34], z_1 = E[u_12 u_13] - E[u_12 u_34].

    Args:
        samples: ``[..., S, H]``
        targets: ``[..., H]``

    Raises:
        ValueError: fewer than four samples, from which E[u_12 u_34] cannot be estimated.
    """
    num_samples = samples.shape[-2]
    if num_samples < 4:
        raise ValueError(f"the noise of pairs needs at least four samples per position, found {num_samples}")
    chosen = [n - 1 for n in ngram_lengths]
    hits = np.logical_and.accumulate(samples == targets[..., None, :], axis=-1)[..., chosen].astype(np.float64)
    same = np.logical_and.accumulate(samples[..., :, None, :] == samples[..., None, :, :], axis=-1)[..., chosen]
    pairs = hits[..., :, None, :] + hits[..., None, :, :] - same  # [..., S, S, N]
    pairs[..., np.arange(num_samples), np.arange(num_samples), :] = 0.0
    pairs = pairs.reshape(-1, num_samples, num_samples, len(chosen))
    rows, sums = pairs.sum(axis=2), pairs.sum(axis=(1, 2))
    flat, flat_rows = pairs.reshape(-1, len(chosen)), rows.reshape(-1, len(chosen))
    # Sums of products over ordered pairs of pairs that share both samples, one, or none.
    both = flat.T @ flat
    one = flat_rows.T @ flat_rows - both
    none = sums.T @ sums - 4.0 * one - 2.0 * both
    count = num_samples * (num_samples - 1)
    equal, shared = both / count, one / (count * (num_samples - 2))
    apart = none / (count * (num_samples - 2) * (num_samples - 3))
    z_1, z_2 = shared - apart, equal - apart
    return SamplingNoise(4.0 * z_1, 2.0 * z_2 - 4.0 * z_1)
