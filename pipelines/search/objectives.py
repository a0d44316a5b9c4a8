"""The objectives and constraints of a search, read from the results of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.study.search_metrics import search_metric
from pipelines.study.search_settings import Constraint, Objective


def objective_values(objectives: Sequence[Objective], results: Mapping[str, Mapping[str, Any]]) -> tuple[float, ...]:
    """One number per objective, from the results of a trial's stages by kind.

    Raises:
        KeyError: a stage did not report what an objective needs.
    """
    metrics = [search_metric(objective.metric) for objective in objectives]
    return tuple(metric.read(results[metric.kind]) for metric in metrics)


def constraint_excesses(
    constraints: Sequence[Constraint], results: Mapping[str, Mapping[str, Any]]
) -> dict[Constraint, float]:
    """By how much a trial breaks each constraint, in the metric's own unit; zero or less where it keeps it.

    Raises:
        KeyError: a stage did not report what a constraint needs.
    """
    return {constraint: _excess(constraint, _bounded(constraint, results)) for constraint in constraints}


def violations(constraints: Sequence[Constraint], results: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The constraints that a trial breaks, in words, with what was found."""
    excesses = constraint_excesses(constraints, results)
    return tuple(
        f"{constraint} (found {_bounded(constraint, results):.6g})" for constraint, by in excesses.items() if by > 0
    )


def _excess(constraint: Constraint, value: float | None) -> float:
    if value is None:
        return 0.0
    if constraint.at_least is not None:
        return constraint.at_least - value
    assert constraint.at_most is not None
    return value - constraint.at_most


def _bounded(constraint: Constraint, results: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The constrained number; None where the trial has no such stage, as a token model has no autoencoder."""
    metric = search_metric(constraint.metric)
    return metric.read(results[metric.kind]) if metric.kind in results else None
