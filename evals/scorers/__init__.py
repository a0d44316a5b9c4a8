"""Scores of text by a model without a likelihood: what stands in for log P(continuation | context).

A scorer looks at one chunk at a time, at draws of its latent after the true text before it (teacher forcing), and a
continuation's score is the sum over its chunks. Other distributions add scorers through the entry point group
``calm_bench.scorers``.
"""

from __future__ import annotations

from calm_bench.registry import Registry
from evals.scorers.draws import Chunks, Draws
from evals.scorers.estimate import Estimate, Scorer

SCORERS: Registry[Scorer] = Registry(
    "scorers",
    {
        "decoder": "evals.scorers.decoder:decoder",
        "energy_score": "evals.scorers.latent_energy:energy_score",
        "latent_density": "evals.scorers.latent_density:latent_density",
        "latent_energy": "evals.scorers.latent_energy:latent_energy",
        "prefix_match": "evals.scorers.prefix_match:prefix_match",
        "relative_energy": "evals.scorers.latent_energy:relative_energy",
    },
    one="scorer",
)

EXACT = "exact"
"""What token models are scored by: their likelihood, which needs no draws."""

DEFAULT_SCORER = "relative_energy"
"""The one that ranks best (``docs/scorers.md``)."""

__all__ = ["DEFAULT_SCORER", "EXACT", "SCORERS", "Chunks", "Draws", "Estimate", "Scorer"]
