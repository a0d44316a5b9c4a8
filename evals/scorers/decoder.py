"""Monte Carlo through the decoder's softmax: the model's own likelihood, integrated over its latent by sampling."""

from __future__ import annotations

from evals.scorers.draws import Draws
from evals.scorers.estimate import Estimate, log_mean_ratio


def decoder(draws: Draws) -> Estimate:
    """log mean_z prod_k p(x_k | z) over the known tokens, less the same over those of the context, with equal draws.

    It estimates the log-likelihood of text of which every token is drawn from the decoder's softmax rather than chosen
    as its maximum, in nats. The expectation of a mean's logarithm lies below the logarithm of its expectation (Jensen),
    so without a context in the chunk it is a lower bound in expectation, which rises to the likelihood with S; the
    difference of two such logarithms is consistent, but no bound.
    """
    if not bool(draws.in_context.any()):
        return log_mean_ratio(draws.known_log_probability)
    return log_mean_ratio(draws.known_log_probability, draws.context_log_probability)
