"""Latent energy: how near the draws come to the latent that means the text.

Three ways to say it, of one chunk; z, z' are draws, mu the posterior's mean of the chunk. Whether a context gives the
chunk's first tokens or not, the draws are weighted by the decoder's probability of these tokens, p(prefix | z), so that
E is over z given the context *and* the prefix. Of a continuation that ends inside the chunk, mu is that of the known
tokens followed by the draw's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evals.scorers.draws import Draws
from evals.scorers.estimate import Estimate


def latent_energy(draws: Draws) -> Estimate:
    """-E|z - mu|.

    The energy distance has a second term, E|z - z'|, which is left out here. For the first chunk it is the same for all
    choices; for later ones it depends on the choice so far, and choices that leave the model uncertain, whose draws lie
    far from everything, lose.
    """
    distance, influence = _distance(draws)
    return Estimate(-distance, influence.var(dim=0) / draws.num_samples)


def energy_score(draws: Draws) -> Estimate:
    """-E|z - mu| + E|z - z'| / 2: the energy score, strictly proper, of the latent mu (paper, section 3.3)."""
    (distance, near), (spread, wide) = _distance(draws), _spread(draws.latents)
    return Estimate(spread / 2 - distance, (wide / 2 - near).var(dim=0) / draws.num_samples)


def relative_energy(draws: Draws) -> Estimate:
    """-log (E|z - mu| / E|z - z'|): how far mu is from the draws in units of how far they are from each other.

    The same in every unit of the latent, so that a chunk of which the model is sure weighs as much as one of which it
    is not. If mu were another draw, it would be about 0.
    """
    (distance, near), (spread, wide) = _distance(draws), _spread(draws.latents)
    distance, spread = distance.clamp_min(TINY), spread.clamp_min(TINY)
    influence = wide / spread - near / distance
    return Estimate(spread.log() - distance.log(), influence.var(dim=0) / draws.num_samples)


TINY = 1e-12
"""A head that draws one latent only has no spread."""


def _distance(draws: Draws) -> tuple[Tensor, Tensor]:
    """E|z - mu| given the prefix, fp64 [Q], and each draw's influence on it, [S, Q] (of a ratio of means)."""
    distances = torch.linalg.vector_norm(draws.latents.float() - draws.posterior[0].float(), dim=-1).double()
    shares = draws.context_log_probability.double().softmax(dim=0)
    mean = (shares * distances).sum(dim=0)
    return mean, len(distances) * shares * (distances - mean)


def _spread(latents: Tensor) -> tuple[Tensor, Tensor]:
    """E|z - z'| over pairs of different draws, fp64 [Q], and each draw's influence, [S, Q] (of a U-statistic)."""
    x = latents.float().transpose(0, 1)
    pairs = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    means = pairs.double().sum(dim=-1).T / (len(latents) - 1)
    mean = means.mean(dim=0)
    return mean, 2 * (means - mean)
