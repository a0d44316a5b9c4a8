"""Where a study stands at one moment: what a display shows, and what a driver writes for those who watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from calm_bench.frozen import Frozen

Level = Literal["info", "good", "warning", "error"]


class StageView(Frozen):
    """A stage that runs, or waits to be tried again."""

    name: str
    """``kind-identity``."""
    label: str
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    mb_per_second: float | None = None
    """Text that a stage made of parts is through with."""
    remaining_s: float | None = None
    retries: int = 0
    trial: int | None = None
    """The first trial that needs it."""
    num_trials: int = 1
    """How many do."""
    host: str = ""
    """Which host works on it; empty where it is not told."""
    since: float | None = None
    """Since when, in seconds since the epoch."""
    as_of: float | None = None
    """When the numbers were written; None for those of this moment."""


class TrialView(Frozen):
    """One trial in a line."""

    number: int
    label: str
    state: Literal["waiting", "running", "complete", "failed", "invalid", "pruned"]
    stages_done: int = 0
    num_stages: int = 0
    note: str = ""
    """What runs, what came of it, or why it ended."""


class Said(Frozen):
    """A line about something that happened, numbered from 0 without a gap."""

    number: int
    elapsed_s: float
    text: str
    level: Level = "info"


class StudyView(Frozen):
    """Everything a display shows. Its size does not grow with the number of trials."""

    study: str
    folder: str
    num_trials: int
    complete: int = 0
    failed: int = 0
    pruned: int = 0
    cached: int = 0
    """Complete trials that were complete before this driver began; part of ``complete``."""
    stages: Mapping[str, int] = Field(default_factory=dict)
    """Number of stages by state: queued, running, cached, done, failed."""
    retries: int = 0
    flops: float = 0.0
    """Training FLOPs spent so far on what was not in the store."""
    flops_to_do: float = 0.0
    """Training FLOPs of all stages that were not in the store, those spent included."""
    flops_cached: float = 0.0
    """Training FLOPs of the stages that were."""
    num_known: int = 0
    """Trials of which the FLOPs are counted: a search does not know its later ones yet."""
    elapsed_s: float = 0.0
    remaining_s: float | None = None
    """Seconds to the end at the pace so far; None before there is one."""
    unpriced: tuple[str, ...] = ()
    """Kinds of stages still to come of which none has ended, so that ``remaining_s`` is without them."""
    best: str = ""
    running: tuple[StageView, ...] = ()
    waiting: tuple[str, ...] = ()
    """Labels of the first stages in the queue."""
    trials: tuple[TrialView, ...] = ()
    """All trials of a small study; of a large one those that ended last, and the last that failed."""
    said: tuple[Said, ...] = ()
    """The last lines."""
    stopping: str = ""
    """Why the study is asked to stop; empty while it is not."""
