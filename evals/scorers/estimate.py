"""What a scorer returns, and the Monte Carlo errors that scorers share.

Shape letters: Q chunks, S draws.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from evals.scorers.draws import Draws


class Estimate(NamedTuple):
    """Scores of Q chunks and how far they would move with other draws."""

    values: Tensor
    """fp64 [Q]; larger is likelier."""
    variances: Tensor
    """fp64 [Q], of the values over draws."""


class Scorer(Protocol):
    """A plug-in of the registry ``SCORERS``: scores chunks from draws of their latents, row by row.

    A chunk is scored on its known tokens from ``begins`` to before ``ends``. What stands before them is given: the
    score is conditioned on it. What stands after them is not part of the text: it is left open.
    """

    def __call__(self, draws: Draws, /) -> Estimate: ...


def log_mean_ratio(numerators: Tensor, denominators: Tensor | None = None) -> Estimate:
    """log of mean_s exp(n_s), minus log of mean_s exp(d_s) over the same draws: [S, Q] each.

    The variance is that of the delta method, ``Var_s(u_s - v_s) / S`` with u and v the terms over their means. By
    Jensen's inequality the logarithm of a mean is too low by about half its variance.
    """
    log_count = math.log(len(numerators))
    top = numerators.double()
    values = top.logsumexp(dim=0) - log_count
    terms = (top - values).exp()
    if denominators is not None:
        bottom = denominators.double()
        normaliser = bottom.logsumexp(dim=0) - log_count
        terms = terms - (bottom - normaliser).exp()
        values = values - normaliser
    return Estimate(values, terms.var(dim=0) / len(terms))
