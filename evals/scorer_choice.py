"""Which scorer answers multiple choice for a model, known from its family before the model is there."""

from __future__ import annotations

from typing import Literal

from calm_bench.overrides import ConfigurationError
from evals.scorers import DEFAULT_SCORER, EXACT, SCORERS


def scorer_for(
    kind: str, likelihood: Literal["exact", "bound", "none"], has_latents: bool, name: str | None = None
) -> str:
    """The scorer of models of ``kind``: ``name``, or where it is unset the one that ranks best.

    Args:
        has_latents: whether the model is built on an autoencoder, whose latents scorers compare.

    Raises:
        ConfigurationError: tasks cannot be asked of such models, or ``name`` is not for them.
    """
    is_exact = likelihood == "exact"
    if not is_exact and not has_latents:
        raise ConfigurationError(
            f"a {kind} model has no exact likelihood, and has no latents for scorers to compare: tasks of lm-eval are "
            "for models with either"
        )
    if name is None:
        return EXACT if is_exact else DEFAULT_SCORER
    if is_exact != (name == EXACT):
        exact = f"a {kind} model has exact likelihoods"
        why = exact if is_exact else "a chunk model has no exact likelihood"
        names = EXACT if is_exact else ", ".join(SCORERS.names())
        raise ConfigurationError(f"{why}, so its scorer cannot be {name!r}: leave it unset, or take {names}")
    return name
