"""A trial as the mirror knows it, whether a running study told it or its files did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.config import Experiment
from calm_bench.fingerprint import identity as fingerprint
from pipelines.results.entry import Entry
from pipelines.tracking.times import StagePlace

if TYPE_CHECKING:
    from pipelines.study.trial import TrialState

WRITTEN_AS = 3
"""Raised when more or other things are written of a trial, so that runs written before are completed."""


@dataclass(frozen=True)
class TrialEnd:
    """What became of a trial."""

    state: TrialState
    error: str | None = None
    violations: tuple[str, ...] = ()
    entry: Entry | None = None
    """Its row; None unless the trial is complete."""
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of its finished stages, by kind."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Of its finished stages, by kind."""

    @property
    def digest(self) -> str:
        """Equal digests are written alike."""
        return fingerprint([WRITTEN_AS, self.state, self.error, list(self.violations), self.entry])


@dataclass
class Trial:
    """What is known of a trial, and which part of it is not yet in MLflow."""

    number: int
    label: str
    key: str
    """What makes its run unique within its study: ``number/identity of its last stage``, because equal settings on
    another corpus or Python are another result."""
    experiment: Experiment | None
    """None where its settings do not fit together."""
    stages: Mapping[str, StagePlace] = field(default_factory=dict)
    """By kind, in the order in which they run."""
    end: TrialEnd | None = None
    changed: bool = True

    @staticmethod
    def key_of(number: int, stages: Mapping[str, StagePlace]) -> str:
        last = list(stages.values())[-1].identity if stages else "invalid"
        return f"{number}/{last}"
