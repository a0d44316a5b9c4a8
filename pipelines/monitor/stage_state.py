"""Where one stage stands, kept up to date from the study's events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.execution import events

State = Literal["queued", "running", "cached", "done", "failed"]


@dataclass
class StageState:
    """A stage's state and its latest numbers."""

    name: str
    kind: str = ""
    state: State = "queued"
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    mb_per_second: float | None = None
    """Text that a stage made of parts is through with; its steps are these parts."""
    retries: int = 0
    """How often it was tried again."""
    outcome: str = ""
    """One phrase: what came of it, or why it failed."""
    planned_flops: float = 0.0
    """Training FLOPs of all its steps; of a finished stage, those that it took. 0 for a stage that trains nothing."""
    expected_s: float | None = None
    """What the plan expects it to take; None where it does not tell."""
    wall_time_s: float = 0.0
    """Seconds from start to end of a stage that this driver saw through."""
    plateau_at: int | None = None
    """The step at which training first raised its plateau alarm."""
    _warning: str = ""
    _first: tuple[int, float] | None = None
    _time: float = 0.0

    def note(self, event: events.StageProgress) -> None:
        self.step = max(self.step, event.step)
        self.total_steps = event.total_steps or self.total_steps
        if event.split == "train":
            self.loss = event.metrics.get("loss", self.loss)
            self.tokens_per_second = event.metrics.get("tokens_per_second", self.tokens_per_second)
            self.mb_per_second = event.metrics.get("mb_per_second", self.mb_per_second)
            if self.plateau_at is None and event.metrics.get("plateau"):
                self.plateau_at = event.step
                self._warning = f"{self.name}: WARNING: {_plateau(event)}"
        self._first = self._first or (event.step, event.time)
        self._time = max(self._time, event.time)

    def take_warning(self) -> str:
        """What is new to warn of, once; mostly empty."""
        warning, self._warning = self._warning, ""
        return warning

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the last step at the pace so far, by the stage's own clock; None before there is a pace."""
        if self._first is None or self.total_steps is None or self.step <= self._first[0]:
            return None
        pace = (self._time - self._first[1]) / (self.step - self._first[0])
        return max(0, self.total_steps - self.step) * pace

    @property
    def fraction(self) -> float | None:
        """Share of the steps done; None where a stage does not count steps."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else None

    @property
    def flops(self) -> float:
        """Training FLOPs that it has spent."""
        return self.planned_flops * (1.0 if self.state in ("cached", "done") else self.fraction or 0.0)


def _plateau(event: events.StageProgress) -> str:
    """In words, from the line of metrics that raised the alarm."""
    metrics = event.metrics
    return (
        f"plateau at step {event.step:,}: fidelity {metrics['fidelity']:.4g} and diversity {metrics['diversity']:.4g} "
        f"stay level; the loss is {metrics['loss']:.4g}, a head that ignores its context would score "
        f"{metrics['unconditional']:.4g}; try another model.training.learning_rate, more warmup_steps there "
        "or a larger batch_size"
    )
