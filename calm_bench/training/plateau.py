"""An alarm for the known failure of energy-score training: both terms stay level and nothing is learnt any more.

Level alone is no failure, every training ends so. It is one where the level is bad: a head that has learnt to ignore
its context (fidelity and diversity both high), or one that ignores its noise (diversity low).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

TERMS = ("fidelity", "diversity", "unconditional")
"""Metrics without which there is nothing to judge: other losses never raise the alarm."""
WINDOW = 0.1
"""Share of the training that is looked back on: what counts as standing still depends on how long one means to walk."""
MIN_POINTS = 10
"""Logged points in the window at least; shorter trainings are never judged."""
LEVEL = 0.01
"""The terms are level when over the window neither changed, and the loss did not fall, by this share of fidelity."""
HIGH = 0.99
"""The level is bad above this share of what a head that ignores its context would score."""
LOW_DIVERSITY = 0.4
"""The level is bad below this share of fidelity; a calibrated head has 0.5, since 2 E|y - x| = 2 E|x - x'| then."""


class PlateauAlarm:
    """Looks at every logged point after the warm-up; its state is JSON, so that a resumed training is judged alike."""

    def __init__(self, total_steps: int, log_every: int, warmup_steps: int) -> None:
        self._first_step = warmup_steps
        self._points: deque[tuple[float, float, float]] = deque(
            maxlen=max(MIN_POINTS, round(WINDOW * total_steps / log_every))
        )
        self._step = 0
        self.steps = 0
        """Training steps spent under the alarm."""

    def note(self, step: int, metrics: Mapping[str, float]) -> bool | None:
        """Whether the training is on the plateau at ``step``; ``None`` where ``metrics`` lack the terms."""
        if any(name not in metrics for name in TERMS):
            return None
        elapsed, self._step = step - self._step, step
        if step <= self._first_step:
            return False
        self._points.append((metrics["fidelity"], metrics["diversity"], metrics["unconditional"]))
        is_on = len(self._points) == self._points.maxlen and self._is_level() and self._is_bad()
        self.steps += elapsed * is_on
        return is_on

    def state_dict(self) -> dict[str, Any]:
        return {"points": list(self._points), "step": self._step, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._points.clear()
        self._points.extend((fidelity, diversity, other) for fidelity, diversity, other in state["points"])
        self._step, self.steps = state["step"], state["steps"]

    def _is_level(self) -> bool:
        fidelity, diversity, _ = zip(*self._points, strict=True)
        loss = [f - d for f, d in zip(fidelity, diversity, strict=True)]
        most = LEVEL * _mean(fidelity)
        return abs(_change(fidelity)) < most and abs(_change(diversity)) < most and _change(loss) > -most

    def _is_bad(self) -> bool:
        fidelity, diversity, unconditional = (_mean(values) for values in zip(*self._points, strict=True))
        return fidelity - diversity > HIGH * unconditional or diversity < LOW_DIVERSITY * fidelity


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _change(values: tuple[float, ...] | list[float]) -> float:
    """From one end of the window to the other, along the least-squares line: single points are noisy."""
    centre = (len(values) - 1) / 2
    offsets = [index - centre for index in range(len(values))]
    slope = sum(x * y for x, y in zip(offsets, values, strict=True)) / sum(x * x for x in offsets)
    return slope * (len(values) - 1)
