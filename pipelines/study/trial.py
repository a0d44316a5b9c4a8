"""What became of one trial of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from calm_bench.config import Experiment
from pipelines.study.stage import StageGraph

TrialState = Literal["complete", "failed", "invalid", "pruned"]
"""``invalid``: the settings do not fit together, so nothing of the trial was run. ``pruned``: its language model was
worse than those of other trials at equal FLOPs."""

TrialRole = Literal["search", "selected", "untuned"]
"""``search``: a point of the search. ``selected``: the best of a search, trained again with a fresh seed; ``untuned``:
what the search began from, likewise."""


@dataclass(frozen=True)
class TrialOutcome:
    """One point of the search: its settings, its stages and their results.

    ``experiment`` and ``graph`` are None only for an invalid trial. ``results`` and ``folders`` hold the finished
    stages by kind: all of them for a complete trial, those before the failure for a failed one.
    """

    number: int
    label: str
    settings: Mapping[str, Any]
    """Values by dotted path of the experiment, as the trial set them over the study's base experiment."""
    state: TrialState
    error: str | None = None
    experiment: Experiment | None = None
    graph: StageGraph | None = None
    results: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    """On this machine; of a remote store without weights and texts."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where the store keeps them, for people: below its folder, or as addresses of an object store."""
    values: tuple[float, ...] = ()
    """Objectives of a complete trial, in the order of ``search.objectives``."""
    violations: tuple[str, ...] = ()
    """The constraints of the search that a complete trial breaks, each with the value found."""
    role: TrialRole = "search"
    stratum: str = ""
    """Label of the search that it belongs to, or whose best it is; empty where the study is one search."""
    cached: bool = False
    """True when this run found everything done and computed nothing for the trial."""
