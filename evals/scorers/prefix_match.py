"""Sampled prefix matches: the share of samples that begin with the text."""

from __future__ import annotations

import torch

from evals.scorers.draws import Draws
from evals.scorers.estimate import Estimate


def prefix_match(draws: Draws) -> Estimate:
    """log (c + 1/2) / (n + 1), with c of the n draws that decode to the context's tokens decoding to all known ones.

    Summed over chunks it is the chain rule for the probability that a sampled text begins with the continuation, token
    for token. The half (Krichevsky and Trofimov's) keeps what never occurred finite; n is 0 where no draw reproduces
    the context's tokens, and such a chunk says nothing.
    """
    begins, fits = draws.matches
    count, hits = begins.sum(dim=0).double(), fits.sum(dim=0).double()
    share = (hits + 0.5) / (count + 1)
    return Estimate(torch.log(share), (1 - share) / (share * (count + 1)))
