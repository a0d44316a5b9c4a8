"""Which rows of a study a setting of the command line reaches.

A trial is the base experiment with the settings of its point of the search on top, so a setting of the base that the
search sets too is lost on those rows. Losing it silently costs people a run; they are told beforehand instead.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from calm_bench.config import Autoencoder, Experiment, LanguageModel
from calm_bench.family_registry import lacks_part
from calm_bench.overrides import ConfigurationError, apply_settings, assign, parse_assignment
from calm_bench.problems import path_segments
from pipelines.study.config import Study
from pipelines.study.search_settings import Parameter, leaves

_ABSENT = object()


def refuse_lost_settings(study: Study, given: Mapping[str, Any]) -> None:
    """Refuse settings of the command line that the search overrides, on all rows or some.

    Args:
        given: by dotted path, as they are part of ``study`` already.

    Raises:
        ConfigurationError: names the rows, and how to set the value there.
    """
    base = study.experiment().model_dump(mode="json")
    for path, value in _of_experiment(given):
        if (message := _fixed_by_a_folder(study, base, path, value)) is not None:
            raise ConfigurationError(message)
        for number, parameter in enumerate(study.search.parameters):
            if parameter.choices is None:
                if _overlap(path, parameter.name):
                    raise ConfigurationError(_varied(path, value, number, parameter))
                continue
            labels = parameter.include or tuple(parameter.choices)
            lost = {label: found for label in labels if (found := _lost(base, path, parameter.choices[label]))}
            if lost:
                ways_out = _ways_out(study, given, path, value, number, lost)
                raise ConfigurationError(_lost_on(path, value, lost, ways_out))


def _fixed_by_a_folder(study: Study, base: dict[str, Any], path: str, value: Any) -> str | None:
    """That a trained part which its section begins from has another value; None where none has."""
    name = path.partition(".")[0]
    section = getattr(study, name)
    folder = section.pretrained.folder if isinstance(section, Autoencoder | LanguageModel) else None
    found = _value_at(base, path)
    if folder is None or found in (value, _ABSENT) or path.startswith(f"{name}.pretrained"):
        return None
    return (
        f"{path}={value} would not reach the model: {name}.pretrained.folder={folder} holds one with {found}; leave "
        "the setting out"
    )


def _of_experiment(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for path, value in given.items():
        normal = ".".join(path_segments(path))
        if normal.partition(".")[0] in Experiment.model_fields:
            yield from ((leaf, part) for leaf, part in leaves(normal, value))


def _lost(base: dict[str, Any], path: str, settings: Mapping[str, Any]) -> str:
    """What a row with ``settings`` has at ``path`` in place of the base's value; empty where it has that.

    Nothing is lost on a row whose kind of model has no such part.
    """
    row = assign(base, settings)
    before, after = _value_at(base, path), _value_at(row, path)
    if before == after or lacks_part(str(row["model"]["kind"]), path):
        return ""
    return "its own default" if after is _ABSENT else str(after)


def _value_at(data: Any, path: str) -> Any:
    here = data
    for segment in path.split("."):
        if isinstance(here, dict) and segment in here:
            here = here[segment]
        elif isinstance(here, list) and segment.isdigit() and int(segment) < len(here):
            here = here[int(segment)]
        else:
            return _ABSENT
    return here


def _overlap(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def _varied(path: str, value: Any, number: int, parameter: Parameter) -> str:
    if parameter.values is not None:
        varied, way = ", ".join(map(str, parameter.values)), f"search.parameters.{number}.values=[{_written(value)}]"
    else:
        varied = f"{parameter.low:g} to {parameter.high:g}"
        way = f"search.parameters.{number}={{name: {parameter.name}, values: [{_written(value)}]}}"
    return (
        f"{path}={value} would reach no row, since the search varies {parameter.name} ({varied}): give "
        f"{shlex.quote(way)}"
    )


def _lost_on(path: str, value: Any, lost: Mapping[str, str], ways_out: list[str]) -> str:
    rows = ", ".join(f"{label} (there: {found})" for label, found in lost.items())
    ways = ways_out or ["No other row can have it: leave it out"]
    return f"{path}={value} would not reach {rows}: the search sets it there. {'. '.join(ways)}"


def _ways_out(
    study: Study, given: Mapping[str, Any], path: str, value: Any, number: int, lost: Mapping[str, str]
) -> list[str]:
    """What gives the value to rows that can have it: another kind of model or head has other settings beside it."""
    parameter, base = study.search.parameters[number], study.experiment()
    rows = {label: (parameter.choices or {})[label] for label in parameter.include or parameter.choices or ()}
    section = path.removesuffix(".kind")
    # Settings that were given beside a kind could not stay without it.
    beside = section != path and any(other != path and other.startswith(f"{section}.") for other in given)
    ways = []
    if section == path or (not beside and all(_can_be(base, {**own, path: value}) for own in rows.values())):
        ways.append(f"For every row: {shlex.quote(f'search.fixed.{path}={_written(value)}')}")
    if rest := [label for label, settings in rows.items() if label not in lost and _can_be(base, settings)]:
        include = f"search.parameters.{number}.include=[{','.join(map(_written, rest))}]"
        among = "For the others alone, leave those out" if len(rest) + len(lost) == len(rows) else "For rows that can"
        ways.append(f"{among}: {shlex.quote(include)}")
    return ways


def _can_be(base: Experiment, settings: Mapping[str, Any]) -> bool:
    try:
        apply_settings(base, settings)
    except ConfigurationError:
        return False
    return True


def _written(value: Any) -> str:
    """``value`` as it is written behind a ``=``, or in a list there: in quotes where YAML would read something else."""
    plain = str(value)
    try:
        return plain if parse_assignment(f"it=[{plain}]")[1] == [value] else json.dumps(value)
    except ConfigurationError:
        return json.dumps(value)
