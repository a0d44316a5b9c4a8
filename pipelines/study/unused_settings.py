"""Settings that can change nothing in any row of a study, in words: said before anybody waits for what they do.

They are noted and not refused: a study may be narrowed to some of its rows, and a file may write out what is usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from calm_bench.config import Experiment
from calm_bench.family_registry import FAMILIES, lacks_part
from calm_bench.problems import path_segments
from pipelines.study.config import Study
from pipelines.study.search_settings import Parameter, leaves, paths_set

KIND = "model.kind"


@dataclass(frozen=True)
class _Switch:
    """Settings that are read only where another one asks for it."""

    parts: tuple[str, ...]
    by: str
    """The other one."""
    off: tuple[Any, ...]
    """Its values with which nobody reads them."""


_SWITCHES = (
    _Switch(("search.rungs",), "search.pruner", ("none",)),
    _Switch(("search.concurrent_trials",), "search.sampler", ("grid", "random")),
    _Switch(("execution.strategy",), "execution.workers", (1,)),
    _Switch(("samples",), "samples.num_prompts", (0,)),
    _Switch(("benchmarks",), "benchmarks.tasks", ((),)),
    _Switch(
        tuple(f"evaluation.{name}" for name in ("first_position", "position_stride", "num_samples")),
        "evaluation.protocol",
        ("paper",),
    ),
)


def settings_without_rows(study: Study, given: Mapping[str, Any]) -> list[str]:
    """Those of ``given``, by dotted path, that change nothing in any row of ``study``.

    An autoencoder and a head belong to CALM, a chunk size to all but token models, a decoder to patch models; what a
    switch turns off is read by nobody.
    """
    paths = [leaf for path, value in given.items() for leaf, _ in leaves(".".join(path_segments(path)), value)]
    return [*_of_no_kind(study, paths, ()), *_turned_off(study, paths)]


def searched_without_rows(study: Study) -> list[str]:
    """What the search of ``study`` sets without changing a row by it: its trials would be the same model again."""
    found = list(_of_no_kind(study, list(study.search.fixed_settings), (), "search.fixed: "))
    for parameter in study.search.parameters:
        if parameter.choices is None:
            found += _of_no_kind(study, [parameter.name], (parameter, None), "the search over ")
            continue
        for label in parameter.include or parameter.choices:
            paths = [leaf for path, value in parameter.choices[label].items() for leaf, _ in leaves(path, value)]
            found += _of_no_kind(study, paths, (parameter, label), f"choice {label}: ")
    return found


def with_all_choices(study: Study) -> Study:
    """``study`` with the choices that ``include`` leaves out for now."""
    parameters = tuple(parameter.model_copy(update={"include": None}) for parameter in study.search.parameters)
    return study.model_copy(update={"search": study.search.model_copy(update={"parameters": parameters})})


def _of_no_kind(
    study: Study, paths: Sequence[str], where: tuple[()] | tuple[Parameter, str | None], before: str = ""
) -> Iterator[str]:
    """The one sentence about those of ``paths`` that no kind of model has, of all rows or of the rows ``where``."""
    kinds = sorted(set(_kinds(study, *where)))
    if not kinds or not all(kind in FAMILIES.names() for kind in kinds):
        return
    unused = [
        path
        for path in paths
        if path.partition(".")[0] in Experiment.model_fields and all(lacks_part(kind, path) for kind in kinds)
    ]
    if unused:
        rows = "every such row" if where else "every row"
        yield (f"{before}{_listed(unused)} here: {rows} is a {' or '.join(kinds)} model, which has no such part")


def _turned_off(study: Study, paths: Sequence[str]) -> Iterator[str]:
    searched = set(paths_set(study.search))
    for switch in _SWITCHES:
        value: Any = study
        for name in switch.by.split("."):
            value = getattr(value, name)
        unused = [path for path in paths if path != switch.by and any(_inside(path, part) for part in switch.parts)]
        if unused and value in switch.off and switch.by not in searched:
            stands = "is empty" if value == () else f"is {value}"
            yield f"{_listed(unused)} here: {switch.by} {stands}"


def _listed(paths: Sequence[str]) -> str:
    *first, last = paths
    return f"{', '.join(first)} and {last} change nothing" if first else f"{last} changes nothing"


def _inside(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}.")


def _kinds(study: Study, of: Parameter | None = None, label: str | None = None) -> Iterator[str]:
    """The kinds of model that the rows of ``study`` may have; those of the rows with ``of``, or its choice ``label``.

    Walks the combinations of the parameters that decide the kind, or whether ``of`` is searched.
    """
    search = study.search
    deciding = [p for p in search.parameters if p.name in search.each or any(KIND in s for _, s in _options(p))]
    for row in product(*(_options(parameter) for parameter in deciding)):
        labels = {parameter.name: value for parameter, (value, _) in zip(deciding, row, strict=True)}
        if of is not None and not _applies(of, labels):
            continue
        if of is not None and label is not None and labels.get(of.name, label) != label:
            continue
        kind = study.model.kind
        for parameter, (_, settings) in zip(deciding, row, strict=True):
            if _applies(parameter, labels):
                kind = settings.get(KIND, kind)
        yield str(search.fixed_settings.get(KIND, kind))


def _options(parameter: Parameter) -> list[tuple[Any, dict[str, Any]]]:
    """Each value or label of ``parameter`` with what it sets, by dotted path."""
    if parameter.choices is not None:
        return [(label, _settings(parameter, label)) for label in parameter.include or parameter.choices]
    return [(value, {parameter.name: value}) for value in parameter.values or ()]


def _settings(parameter: Parameter, label: str) -> dict[str, Any]:
    return dict(leaf for path, value in (parameter.choices or {})[label].items() for leaf in leaves(path, value))


def _applies(parameter: Parameter, chosen: Mapping[str, Any]) -> bool:
    return all(chosen[name] in values for name, values in parameter.when.items())
