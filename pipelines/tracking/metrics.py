"""What calm-bench writes into a run: training metrics by step and by FLOPs, the row's numbers, the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from calm_bench.config import Experiment
from pipelines.common.redact import redact
from pipelines.results.columns import catalogue
from pipelines.store.metrics_log import Line
from pipelines.study.catalogue import resolve_study, shipped_studies
from pipelines.study.config import Study
from pipelines.study.stage_kind import kind_or_none, metric_prefix

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from pipelines.results.entry import Entry


_OF_THE_OPTIMIZER = frozenset({"learning_rate", "grad_norm", "grad_norm_head", "grad_norm_backbone", "plateau"})
_OF_THE_MACHINE = frozenset({"tokens_per_second"})
_BY_FLOPS = frozenset({"loss", "brierlm"})


def metrics_of(line: Line, start_ms: int) -> Iterator[Metric]:
    """The line's values by step and, for the loss of a trial's model, by GFLOPs spent in training it.

    Args:
        start_ms: of the stage. It and the line's own time, not the clock, date them: a line that is sent twice must
            be the same row.
    """
    from mlflow.entities import Metric

    when = start_ms + round(1000 * line.time)
    by_gflops = round(line.flops / 1e9)
    prefix = metric_prefix(line.kind)
    for name, value in line.metrics.items():
        if value is None:
            continue
        section = "optimizer" if name in _OF_THE_OPTIMIZER else "machine" if name in _OF_THE_MACHINE else line.split
        yield Metric(f"{prefix}{section}/{name}", float(value), when, line.step)
        if not prefix and name in _BY_FLOPS:
            yield Metric(f"by_gflops/{line.split}_{name}", float(value), when, by_gflops)


def row_metrics(entry: Entry) -> dict[str, float]:
    """The numbers of a leaderboard row under the names they have in MLflow."""
    values: dict[str, float | str | None] = {}
    for column in catalogue([entry]):
        if column.metric:
            values[column.metric] = column.read(entry)
        if column.error_metric:
            values[column.error_metric] = column.read_error(entry)
    for score in entry.tasks:
        values[f"error/{'_'.join(score.name.split())}_draws"] = score.monte_carlo_error
    return {name: float(value) for name, value in values.items() if value is not None}


def stage_metrics(results: Mapping[str, Mapping[str, Any]], when: int) -> Iterator[Metric]:
    """What the finished stages of a trial tell beside the numbers of its row.

    Args:
        results: by kind.
        when: milliseconds since 1970.
    """
    from mlflow.entities import Metric

    for name, result in results.items():
        kind = kind_or_none(name)
        for point in () if kind is None else kind.metrics(result):
            yield Metric(point.name, float(point.value), when, point.step)


def parameters_of(experiment: Experiment) -> dict[str, str]:
    """The resolved experiment by dotted path, without what cannot matter to it."""
    parameters = dict(_flat(experiment.model_dump(mode="json"), ""))
    family = experiment.model.family
    unused = [f"model.{field}" for field in sorted(family.unused)]
    if not family.needs_autoencoder:
        unused.append("autoencoder.")
    if experiment.corpus.source != "markov":
        unused.append("corpus.markov.")
    return {name: value for name, value in parameters.items() if not name.startswith(tuple(unused))}


def overrides_of(study: Study) -> dict[str, str]:
    """What sets ``study`` apart from the shipped study of its name, else from the defaults, by dotted path.

    Without what no result depends on: how it is run, and where it is tracked.
    """
    names = {shipped.name for shipped in shipped_studies()}
    usual = resolve_study(study.name) if study.name in names else Study(name=study.name)
    apart = {"name", "description", "execution", "tracking"}
    before = dict(_flat(usual.model_dump(mode="json", exclude=apart), ""))
    return {
        name: value
        for name, value in _flat(study.model_dump(mode="json", exclude=apart), "")
        if before.get(name) != value
    }


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else name)
    else:
        yield path, redact(value) if isinstance(value, str) else json.dumps(value)
