"""What a search found out about its parameters: importance by Optuna, and the points for slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.common.numbers import MISSING, scientific, typeset
from pipelines.common.sanitize import sanitize_label
from pipelines.report.columns import LONGEST_LABEL
from pipelines.report.curves import rounded
from pipelines.report.data import Search
from pipelines.store.trial_record import TrialRecord
from pipelines.study.search_settings import Parameter
from pipelines.study.search_settings import Search as Configured
from pipelines.study.space import Scalar, distributions

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ENOUGH = 10
"""Finished trials below which an importance would be noise."""


def search_of(search: Configured, trials: Sequence[TrialRecord]) -> Search | None:
    """The search's points with their first objective, and how much each parameter mattered to it.

    None where nothing is searched over. Trials that were trained again are no points of it: they have other seeds, and
    scores on other text.
    """
    if not search.parameters:
        return None
    trials = [trial for trial in trials if trial.role == "search"]
    objective = search.objectives[0]
    points = []
    for trial in trials:
        value = next(iter(trial.values), None)
        at = {parameter.name: value_at(parameter, trial.settings) for parameter in search.parameters}
        points.append(
            {
                "trial": trial.number,
                "label": sanitize_label(trial.label, LONGEST_LABEL),
                "state": trial.state,
                "value": None if value is None else rounded(value, 6),
                "text": MISSING if value is None else _text(value),
                "at": at,
            }
        )
    importance, why = _importance(search, trials, points)
    return Search(
        sampler=search.sampler,
        objective=objective.metric,
        direction=objective.direction,
        parameters=[
            {
                "name": parameter.name,
                "label": _short(parameter.name, [other.name for other in search.parameters]),
                "log": parameter.log,
                "numeric": _is_numeric(parameter),
            }
            for parameter in search.parameters
        ],
        points=points,
        importance=importance,
        why=why,
    )


def _text(value: float) -> str:
    """A score's or a loss's four digits; FLOPs as they are printed everywhere."""
    return typeset(scientific(value)) if abs(value) >= 1e5 else f"{value:.4g}"


def value_at(parameter: Parameter, settings: Mapping[str, Any]) -> Scalar:
    """What a trial with ``settings`` (by dotted path) chose for ``parameter``; None where that cannot be told."""
    if parameter.choices is None:
        found = settings.get(parameter.name)
        return found if isinstance(found, str | int | float | bool) else None if found is None else str(found)
    # A later parameter may override a path, so the choice that fits best is taken, and the larger one of equals.
    fits = {
        label: (sum(settings.get(path) == value for path, value in bundle.items()) / max(1, len(bundle)), len(bundle))
        for label, bundle in parameter.choices.items()
    }
    best = max(fits, key=lambda label: fits[label])
    return best if fits[best][0] > 0 or not parameter.choices[best] else None


def _importance(
    search: Configured, trials: Sequence[TrialRecord], points: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, float], str]:
    """By parameter, largest first; or why there is none."""
    complete = sum(trial.state == "complete" for trial in trials)
    varied = [
        parameter.name
        for parameter in search.parameters
        if len({str(point["at"][parameter.name]) for point in points if point["state"] == "complete"}) > 1
    ]
    if complete < ENOUGH:
        return {}, f"{complete} finished trials are too few to say which setting mattered: that takes {ENOUGH}."
    if len(varied) < 2:
        return {}, "Only one thing was searched over, so there is nothing to weigh it against."
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=[objective.direction for objective in search.objectives])
    study.add_trials(
        [frozen for trial, point in zip(trials, points, strict=True) for frozen in _frozen(search, trial, point)]
    )
    try:
        found = optuna.importance.get_param_importances(study, params=varied)
    except (ValueError, RuntimeError) as error:
        return {}, f"Optuna cannot say what mattered: {sanitize_label(str(error), 300)}"
    if not all(map(math.isfinite, found.values())):
        return {}, "Optuna finds no parameter that mattered."
    return {name: round(value, 4) for name, value in found.items()}, ""


def _frozen(search: Configured, trial: TrialRecord, point: Mapping[str, Any]) -> list[FrozenTrial]:
    """The finished trial in Optuna's terms; nothing where it cannot be told what it chose."""
    import optuna

    at = point["at"]
    if trial.state != "complete" or None in at.values() or len(trial.values) != len(search.objectives):
        return []
    try:
        return [optuna.trial.create_trial(params=at, distributions=distributions(search), values=list(trial.values))]
    except ValueError:
        # Of a search over a wider space, which was narrowed since.
        return []


def _is_numeric(parameter: Parameter) -> bool:
    if parameter.low is not None:
        return True
    values = parameter.values or ()
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _short(name: str, names: Sequence[str]) -> str:
    """The last part of a dotted path, with as many before it as set it apart."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        tail = ".".join(parts[-length:])
        if sum(other.split(".")[-length:] == parts[-length:] for other in names) == 1:
            return tail
    return name
