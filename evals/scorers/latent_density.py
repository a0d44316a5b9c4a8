"""Kernel density of the draws in the latent space, with kernels as wide as the posterior."""

from __future__ import annotations

from evals.scorers.draws import Draws
from evals.scorers.estimate import Estimate, log_mean_ratio


def latent_density(draws: Draws) -> Estimate:
    """log mean_s k(z_s), with k the posterior's density at z_s over the one at its mean: 1 for a draw that hits it.

    k is exp(-|(z - mu) / sigma|^2 / 2) with mean mu and width sigma of the encoder's posterior of the chunk, so it
    counts the draws that mean this chunk, those near it in part. Conditioned on the tokens that the context gives of
    the chunk, draws are weighted by the decoder's probability of these, p(prefix | z). Of a continuation that ends
    inside the chunk, mu and sigma are those of the known tokens followed by the draw's own.

    Everything is computed as logarithms: k itself is often below the smallest float.
    """
    mean, log_std = (part.double() for part in draws.posterior)
    distances = (draws.latents.double() - mean) * (-log_std).exp()
    kernel = -0.5 * distances.square().sum(dim=-1)
    if not bool(draws.in_context.any()):
        return log_mean_ratio(kernel)
    weight = draws.context_log_probability
    return log_mean_ratio(kernel + weight, weight)
