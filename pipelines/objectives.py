"""The objectives of a search, read from the results of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calm_bench.study_config import Objective


def objective_values(objectives: Sequence[Objective], results: Mapping[str, Mapping[str, Any]]) -> tuple[float, ...]:
    """One number per objective, from the results of a trial's stages by kind.

    Raises:
        KeyError: a stage did not report what an objective needs.
    """
    return tuple(_value(objective, results) for objective in objectives)


def _value(objective: Objective, results: Mapping[str, Mapping[str, Any]]) -> float:
    match objective.metric:
        case "brierlm":
            return float(results["evaluation"]["brierlm"])
        case "validation_loss":
            return float(results["language_model"]["validation"]["loss"])
        case "training_flops" | "inference_flops_per_token":
            return float(results["language_model"][objective.metric])
