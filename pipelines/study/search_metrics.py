"""What a search may push up or down, or bound: numbers of the results of stages, each told by one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.study.config import Study
from pipelines.study.stage_kind import STAGE_KINDS

IN_EVERY_TRIAL = ("corpus", "tokens", "language_model", "evaluation")
"""Kinds of which :func:`pipelines.study.graph.stages_for` gives every trial a stage."""


@dataclass(frozen=True)
class SearchMetric:
    """A number of the result of a stage."""

    kind: str
    read: Callable[[Mapping[str, Any]], float]
    """From the stage's result; raises KeyError where it is not there."""


def search_metric(name: str) -> SearchMetric:
    """The metric called ``name``; kinds from elsewhere are imported only where none that ships tells it.

    Raises:
        ConfigurationError: no kind of stages tells it; names the nearest.
    """
    known: list[str] = []
    for kind in sorted(STAGE_KINDS.names(), key=lambda each: each not in STAGE_KINDS.built_in):
        told = STAGE_KINDS.get(kind).search_metrics
        if name in told:
            return SearchMetric(kind, told[name])
        known += told
    raise ConfigurationError(f"no kind of stages tells a metric {name!r}{did_you_mean(name, known)}")


def check_search_metrics(study: Study) -> None:
    """See that every trial of ``study`` has the numbers that its search goes by.

    Raises:
        ConfigurationError: no kind tells one of them, its stage is not part of every trial, or nobody says in which
            direction it is better.
    """
    asked = {extra.kind for extra in study.extra_stages}
    for setting, metrics in (
        ("objectives", [objective.metric for objective in study.search.objectives]),
        ("constraints", [constraint.metric for constraint in study.search.constraints]),
    ):
        for metric in metrics:
            try:
                kind = search_metric(metric).kind
            except ConfigurationError as error:
                raise ConfigurationError(f"search.{setting}: {error}") from error
            if kind in asked or kind in IN_EVERY_TRIAL:
                continue
            if STAGE_KINDS.get(kind).reads:
                raise ConfigurationError(
                    f"search.{setting}: {metric} is told by the stage {kind}, for which this study does not ask: add "
                    f"'{{kind: {kind}}}' to extra_stages"
                )
            if setting == "objectives":
                raise ConfigurationError(
                    f"search.objectives: {metric} is told by the stage {kind}, which not every trial has; it can be "
                    "bounded in search.constraints"
                )
    for objective in study.search.objectives:
        if not objective.has_direction:
            raise ConfigurationError(
                f"search.objectives: say which {objective.metric} is better, "
                f"{{metric: {objective.metric}, direction: maximize}} or direction: minimize"
            )
