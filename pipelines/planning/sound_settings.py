"""Settings that are valid one by one and that no study can mean: said before anything runs, with what to write."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from calm_bench.config import Benchmarks, Experiment
from calm_bench.overrides import ConfigurationError, apply_settings
from pipelines.study.config import Study
from pipelines.study.search_settings import Parameter, Search, leaves
from pipelines.study.strata import strata

FEWEST_DRAWS = 2
"""Draws behind a score of a task: an error needs two."""


def check_settings(study: Study, variants: Iterable[Benchmarks]) -> None:
    """
    Args:
        variants: the benchmarks of the base experiment, and those that points of the search have.

    Raises:
        ConfigurationError: something is given twice, is empty, or cannot be at any point of the search.
    """
    for problem in _problems(study, variants):
        raise ConfigurationError(problem)


def _problems(study: Study, variants: Iterable[Benchmarks]) -> Iterator[str]:
    if not study.execution.store.strip():
        yield "execution.store is empty, so results would lie about in the working directory: name a folder (runs)"
    if study.tracking.enabled and not study.tracking.experiment.strip():
        yield "tracking.experiment is empty: give it a name, or set tracking.enabled=false"
    if study.tracking.enabled and re.fullmatch(r"https?://", study.tracking.uri or ""):
        yield f"tracking.uri={study.tracking.uri} names no host: write http://HOST:PORT, or null for one in the store"
    if study.samples.num_prompts and not study.samples.temperatures:
        yield "samples.temperatures is empty, so nothing would be written: name some, or set samples.num_prompts=0"
    for benchmarks in variants:
        for name in _twice(benchmarks.tasks):
            yield f"benchmarks.tasks names {name} twice, and it has one score: name it once"
        if benchmarks.tasks and benchmarks.num_samples < FEWEST_DRAWS:
            yield (
                f"benchmarks.num_samples={benchmarks.num_samples} is too few: an error needs {FEWEST_DRAWS} draws or "
                "more"
            )
    yield from _of_search(study.search)
    yield from _of_grid(study.search)
    base = study.experiment()
    for parameter in study.search.parameters:
        yield from _of_parameter(parameter, base, study.search.sampler == "grid")


def _of_search(search: Search) -> Iterator[str]:
    if not search.objectives:
        yield "search.objectives is empty: name a metric, as in search.objectives=[{metric: brierlm}]"
    for metric in _twice([objective.metric for objective in search.objectives]):
        yield f"search.objectives names {metric} twice: once is enough"
    for name in _twice([parameter.name for parameter in search.parameters]):
        yield (
            f"search.parameters has two called {name!r}, of which the second would overrule the first: put their "
            "values into one, or give labels of choices names of their own"
        )


def _of_grid(search: Search) -> Iterator[str]:
    sizes = sorted({stratum.num_trials for stratum in strata(search)})
    if search.sampler == "grid" and search.num_trials is not None and sizes != [search.num_trials]:
        points = " or ".join(map(str, sizes)) + (" in each search" if search.each else "")
        yield (
            f"search.num_trials={search.num_trials}: a grid has as many trials as it has points, {points}: leave it "
            "out (search.num_trials=null) and list fewer values, or draw so many of the points "
            "(search.sampler=random)"
        )


def _of_parameter(parameter: Parameter, base: Experiment, is_grid: bool) -> Iterator[str]:
    of = f"search parameter {parameter.name!r}"
    for value in _twice(parameter.values or ()):
        yield f"{of} lists {value!r} twice: its trials would be the same"
    if parameter.choices is not None and "" in parameter.choices:
        yield f"{of} has a choice without a name, by which its row would be called"
    if parameter.low is not None and not parameter.integer:
        current: Any = base
        for name in parameter.name.split("."):
            current = getattr(current, name, None)
        if isinstance(current, int) and not isinstance(current, bool):
            yield f"{of} is a whole number, and a range gives others too: add integer: true, or list its values"
    # Of a grid all trials are known, and the others can be run (--skip-invalid).
    for value in () if is_grid else parameter.values or ():
        if (reason := _never(base, parameter.name, value)) is not None:
            yield f"{of}: {reason}"


def _never(base: Experiment, path: str, value: Any) -> str | None:
    """Why a setting cannot have ``value`` whatever the others are; None where it can, or where others decide."""
    given = dict(leaves(path, value))
    try:
        apply_settings(base, given)
    except ConfigurationError as error:
        # What other settings of the point may put right is told of a model, what they cannot of the setting itself.
        return str(error) if any(str(error).startswith(f"{name}: input should be a valid") for name in given) else None
    except ValueError:
        return None
    return None


def _twice(values: Iterable[Any]) -> list[Any]:
    """What stands in ``values`` more than once; 1 and true are two things, 1 and 1.0 one."""
    counts = Counter((isinstance(value, bool), value if _is_hashable(value) else repr(value)) for value in values)
    return [value for (_, value), count in counts.items() if count > 1]


def _is_hashable(value: Any) -> bool:
    return isinstance(value, str | int | float | None)
