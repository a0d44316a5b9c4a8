"""Listens to a study: its state for displays, and what is worth a line."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from pipelines.common.numbers import duration, printable
from pipelines.execution import events
from pipelines.monitor.state import StudyState
from pipelines.monitor.view import Level, Said, StudyView
from pipelines.monitor.words import LARGE, said_of, stopping, tenth

KEPT = 50
"""Lines kept for those who look later."""
TENTH_S = 5.0
"""A stage tells how far it has come no more often than this."""
SUMMARY_S = 60.0
"""A large study is summed up in a line no more often than this."""


class Tracker:
    """What the driver knows of its study (an events :class:`~pipelines.execution.events.Listener`); read from any
    thread.

    Args:
        say: told each new line.
    """

    def __init__(self, say: Callable[[Said], None] = lambda said: None) -> None:
        self._say = say
        self._lock = threading.RLock()
        self._state = StudyState()
        self._said: deque[Said] = deque(maxlen=KEPT)
        self._count = 0
        self._told: dict[str, tuple[int, float]] = {}
        """Progress told of each stage: the last tenth, and when by the stage's clock."""
        self._start = time.monotonic()
        self._next_summary = SUMMARY_S
        self._stopping_said = False

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    @property
    def num_said(self) -> int:
        return self._count

    def handle(self, event: events.Event) -> None:
        with self._lock:
            self._state.note(event)
            if isinstance(event, events.StageProgress):
                self._progress(event)
                return
            if isinstance(event, events.StudyStopping):
                self.stopping(event.reason)
                return
            if (line := said_of(event, self._state)) is not None:
                self.say(*line)
            if isinstance(event, events.StageFinished | events.TrialFinished):
                self._sum_up()

    def stopping(self, reason: str) -> None:
        """Say that the study was asked to stop, once however often this is called."""
        with self._lock:
            self._state.stopping = reason
            if not self._stopping_said:
                self._stopping_said = True
                self.say(stopping(reason), "warning")

    def say(self, text: str, level: Level = "info") -> None:
        """Tell a line, and keep it."""
        with self._lock:
            said = Said(number=self._count, elapsed_s=self.elapsed_s, text=printable(text), level=level)
            self._count += 1
            self._said.append(said)
            self._say(said)

    def view(self) -> StudyView:
        """What there is to show now."""
        with self._lock:
            return self._state.view(self.elapsed_s).model_copy(update={"said": tuple(self._said)})

    def _progress(self, event: events.StageProgress) -> None:
        state = self._state.of(event.stage)
        if warning := state.take_warning():
            self.say(warning, "warning")
        if self._state.num_trials > LARGE:
            self._sum_up()
            return
        reached = int(10 * (state.fraction or 0))
        last, when = self._told.get(event.stage.name, (0, 0.0))
        # The end has a line of its own.
        if last < reached < 10 and event.time - when >= TENTH_S:
            self._told[event.stage.name] = (reached, event.time)
            self.say(tenth(state))

    def _sum_up(self) -> None:
        """Tell a line of a large study now and then, in place of one for every stage."""
        if self._state.num_trials <= LARGE or self.elapsed_s < self._next_summary:
            return
        self._next_summary = self.elapsed_s + SUMMARY_S
        self.say(summary(self._state.view(self.elapsed_s)))


def summary(view: StudyView) -> str:
    """A study in one line: trials, what runs, the best so far, time left."""
    parts = [f"{view.complete} of {view.num_trials} trials complete"]
    parts += [f"{view.failed} failed"] if view.failed else []
    parts += [f"{view.pruned} pruned"] if view.pruned else []
    if view.running:
        first = view.running[0]
        told = f"{first.label} at step {first.step:,} of {first.total_steps:,}" if first.total_steps else first.label
        others = f" and {len(view.running) - 1} more" if len(view.running) > 1 else ""
        parts.append(f"running {told}{others}")
    parts += [f"best {view.best}"] if view.best else []
    parts += [left] if (left := time_left(view)) else []
    return "; ".join(parts)


def time_left(view: StudyView) -> str:
    """``about 4:10 left``; what is not known is said."""
    if view.remaining_s is None or 0 < view.num_trials <= view.complete + view.failed + view.pruned:
        return ""
    kinds = " or ".join(kind.replace("_", " ") for kind in view.unpriced)
    if kinds and view.remaining_s < 1:
        return f"time left not known yet (no {kinds} stage has ended)"
    if kinds:
        return f"at least {duration(view.remaining_s)} left (no {kinds} stage has ended yet)"
    return f"about {duration(view.remaining_s)} left"
