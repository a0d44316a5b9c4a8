"""What happens during a study, told to whoever listens: a progress display, tracking in MLflow.

All events of a study come from one thread of the driver, in order. A stage shared by several trials is told once.
A listener must not block: the study waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipelines.study.search_settings import Objective
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.trial import TrialOutcome


@dataclass(frozen=True)
class StudyStarted:
    """The study's folder exists and its first trials are about to start."""

    name: str
    identity: str
    folder: Path
    num_trials: int
    objectives: tuple[Objective, ...] = (Objective(),)


@dataclass(frozen=True)
class TrialsCounted:
    """The search has ended, and it is known how many are trained again: selections may coincide or be missing."""

    num_trials: int
    """Of the study in all."""


@dataclass(frozen=True)
class StudyStopping:
    """A polite stop was asked for: running stages save their state and end, nothing new is started."""

    reason: str


@dataclass(frozen=True)
class StudyFinished:
    """All trials are complete or failed; not sent by a study that was stopped."""

    outcomes: tuple[TrialOutcome, ...]


@dataclass(frozen=True)
class StageQueued:
    """The stage has to be run; it waits for its inputs or for a free worker."""

    stage: Stage


@dataclass(frozen=True)
class StageStarted:
    """A worker has taken the stage."""

    stage: Stage
    folder: Path
    """Work folder, where ``metrics.jsonl`` grows."""


@dataclass(frozen=True)
class StageProgress:
    """One line of the stage's ``metrics.jsonl``.

    A stage that continues an interrupted attempt tells that attempt's lines again, so a listener that must count
    each once does so by ``step`` and ``split``.
    """

    stage: Stage
    step: int
    total_steps: int | None
    metrics: Mapping[str, float]
    split: str = "train"
    tokens: float = 0.0
    flops: float = 0.0
    time: float = 0.0
    """Seconds since the stage's own start, over all its attempts as far as the stage counts them."""


@dataclass(frozen=True)
class StageCached:
    """The stage's result was in the store before the study needed it."""

    stage: Stage
    folder: Path
    result: Mapping[str, Any]


@dataclass(frozen=True)
class StageFinished:
    """The stage has been run and its result published."""

    stage: Stage
    folder: Path
    result: Mapping[str, Any]
    wall_time_s: float
    """Seconds from the first sight of the running stage to its end, as the driver saw it."""
    elsewhere: bool = False
    """Whether another driver was at it already when this one turned to it: the time is then that of waiting for it."""


@dataclass(frozen=True)
class StageFailed:
    """The stage raised; every trial that needs it fails."""

    stage: Stage
    error: str


@dataclass(frozen=True)
class StageRetried:
    """The stage was let down by something that may pass, and is tried again from its last checkpoint."""

    stage: Stage
    error: str
    attempt: int
    """Which of ``retries`` this is, from 1."""
    retries: int


@dataclass(frozen=True)
class StageWaiting:
    """The stage cannot begin as things stand: nowhere is what it needs, even if nothing else ran. Told once."""

    stage: Stage
    reason: str


@dataclass(frozen=True)
class StageDropped:
    """No trial needs the stage any more: it is not begun, or was asked to end and keeps what it had reached."""

    stage: Stage


@dataclass(frozen=True)
class TrialStarted:
    """A trial's stages are known."""

    number: int
    label: str
    settings: Mapping[str, Any]
    graph: StageGraph


@dataclass(frozen=True)
class TrialFinished:
    """A trial is complete."""

    outcome: TrialOutcome


@dataclass(frozen=True)
class TrialFailed:
    """A trial failed, was invalid or was pruned; ``outcome.error`` says why."""

    outcome: TrialOutcome


Event = (
    StudyStarted
    | TrialsCounted
    | StudyStopping
    | StudyFinished
    | StageQueued
    | StageStarted
    | StageProgress
    | StageCached
    | StageFinished
    | StageFailed
    | StageRetried
    | StageWaiting
    | StageDropped
    | TrialStarted
    | TrialFinished
    | TrialFailed
)


class Listener(Protocol):
    """Receives every event of a study."""

    def handle(self, event: Event) -> None:
        """Take note of ``event``; raising ends the study."""


@dataclass(frozen=True)
class Listeners:
    """Several listeners as one, told in order."""

    members: Sequence[Listener] = ()

    def handle(self, event: Event) -> None:
        for member in self.members:
            member.handle(event)
