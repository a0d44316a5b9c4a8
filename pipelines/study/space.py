"""The search space of a study: its points, what a point sets, and what it is called."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from calm_bench.family_registry import lacks_part
from calm_bench.overrides import BUDGETS
from pipelines.study.search_settings import Parameter, Search

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Scalar = str | int | float | bool | None
Point = dict[str, Scalar]
"""Value by parameter name: a label of ``choices``, a number, or a listed value (JSON text where it is not scalar)."""


def grid_points(search: Search) -> list[Point]:
    """Every combination of the listed values and choices, the last parameter varying fastest."""
    names = [parameter.name for parameter in search.parameters]
    columns = [_options(parameter) for parameter in search.parameters]
    return [dict(zip(names, row, strict=True)) for row in itertools.product(*columns)]


def distributions(search: Search) -> dict[str, BaseDistribution]:
    """The search space in Optuna's terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, BaseDistribution] = {}
    for parameter in search.parameters:
        if parameter.low is None or parameter.high is None:
            space[parameter.name] = CategoricalDistribution(_options(parameter))
        elif parameter.integer:
            space[parameter.name] = IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
        else:
            space[parameter.name] = FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return space


def settings_at(search: Search, point: Mapping[str, Scalar]) -> dict[str, Any]:
    """What ``point`` sets, by dotted path of the experiment; a later parameter overrides an earlier one,
    and ``search.fixed`` all of them. Parameters that ``point`` lacks set nothing. What is fixed passes by a row whose
    kind of model, set by ``point``, has no such part."""
    settings: dict[str, Any] = {}
    for parameter in search.parameters:
        if parameter.name not in point:
            continue
        value = point[parameter.name]
        if parameter.choices is not None:
            settings.update(parameter.choices[str(value)])
        else:
            settings[parameter.name] = _listed(parameter, value)
    kind = settings.get("model.kind")
    for path, value in search.fixed_settings.items():
        if kind is not None and lacks_part(str(kind), path):
            continue
        for other in _instead_of(path):
            settings.pop(other, None)
        settings[path] = value
    return settings


def _instead_of(path: str) -> list[str]:
    """The paths whose settings give way to one of ``path``: itself, and other lengths of the same training."""
    parent, _, name = path.rpartition(".")
    return [f"{parent}.{length}" for length in BUDGETS] if name in BUDGETS else [path]


def label_of(search: Search, point: Mapping[str, Scalar], name: str) -> str:
    """What people call the trial: labels of choices, ``name=value`` of the rest; ``name`` where nothing is searched."""
    parts = []
    for parameter in search.parameters:
        if parameter.name not in point:
            continue
        value = point[parameter.name]
        if parameter.choices is not None:
            parts.append(str(value))
        else:
            shown = f"{value:.3g}" if isinstance(value, float) else str(value)
            parts.append(f"{_short_name(search, parameter)}={shown}")
    return ", ".join(parts) or name


def _short_name(search: Search, parameter: Parameter) -> str:
    """The last part of the path, with as many parts before it as set it apart from the other parameters."""
    parts = parameter.name.split(".")
    others = [other.name.split(".") for other in search.parameters if other.name != parameter.name]
    for length in range(1, len(parts)):
        if all(other[-length:] != parts[-length:] for other in others):
            return ".".join(parts[-length:])
    return parameter.name


def _options(parameter: Parameter) -> list[Scalar]:
    if parameter.choices is not None:
        return list(parameter.include if parameter.include is not None else parameter.choices)
    return [_scalar(value) for value in parameter.values or ()]


def _scalar(value: Any) -> Scalar:
    """Optuna's categories are scalars; anything else stands there as JSON."""
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, sort_keys=True)


def _listed(parameter: Parameter, scalar: Scalar) -> Any:
    """The value that stands as ``scalar`` in Optuna: itself, or the structure whose JSON it is."""
    if not isinstance(scalar, str):
        return scalar
    structures = (value for value in parameter.values or () if isinstance(value, list | tuple | dict))
    return next((value for value in structures if _scalar(value) == scalar), scalar)
