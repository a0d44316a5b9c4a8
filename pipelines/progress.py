"""What a study is doing, for whoever waits for it: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipelines.engine import events
from pipelines.engine.stage_states import StageState, StudyState, what_came_of
from pipelines.leaderboard.numbers import compact, duration, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_WAITING_SHOWN = 4
_STYLES = {"running": "cyan", "queued": "dim", "done": "green", "cached": "green", "failed": "bold red"}


class PlainProgress:
    """One line an event (:class:`~pipelines.engine.events.Listener`); of a stage, one line each tenth of the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = StudyState()
        self._tenths: dict[object, int] = {}
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def message(self, text: str) -> None:
        """Print a line that is no event."""
        elapsed = duration(time.monotonic() - self._start)
        self._console.print(f"[{elapsed}] {printable(text)}", markup=False, highlight=False, soft_wrap=True)

    def handle(self, event: events.Event) -> None:
        self._state.note(event)
        if isinstance(event, events.StageProgress):
            state = self._state.of(event.stage)
            if warning := state.take_warning():
                self.message(warning)
            tenth = int(10 * (state.fraction or 0))
            if tenth <= self._tenths.get(event.stage, 0):
                return
            self._tenths[event.stage] = tenth
            self.message(f"{state.name}: {_numbers(state)}")
        elif text := _said(event):
            self.message(text)


class RichProgress:
    """A live table of the stages with the trials' count; finished trials stay above it as lines.

    Used as a context manager; a listener like :class:`PlainProgress`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = StudyState()
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(
            console=self._console,
            get_renderable=self.table,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def message(self, text: str, style: str = "") -> None:
        """Print a line above the table."""
        self._console.print(printable(text), style=style, markup=False, highlight=False)

    def handle(self, event: events.Event) -> None:
        with self._lock:
            self._state.note(event)
        if isinstance(event, events.StageProgress):
            if warning := self._state.of(event.stage).take_warning():
                self.message(warning, "yellow")
        elif isinstance(event, events.TrialFinished):
            self.message(_said(event), "green")
        elif isinstance(event, events.TrialFailed):
            self.message(_said(event), "yellow" if event.outcome.state == "pruned" else "red")
        elif isinstance(event, events.StudyStopping | events.StageRetried):
            self.message(_said(event), "yellow")

    def table(self) -> RenderableType:
        """The table as it is now: what runs, what failed, what comes next, and counts of the rest."""
        from rich import box
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            stages = list(self._state.stages.values())
            running = [state for state in stages if state.state == "running"]
            failed = [state for state in stages if state.state == "failed"]
            waiting = [state for state in stages if state.state == "queued"]
            is_wide = self._console.width >= 100

            grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
            grid.add_column("Stage", no_wrap=True, overflow="ellipsis", min_width=16)
            grid.add_column("State", no_wrap=True)
            if is_wide:
                grid.add_column("", width=20)
            for heading in ("Steps", "Loss", "Tokens/s", "Left"):
                grid.add_column(heading, justify="right", no_wrap=True)
            for state in [*running, *failed, *waiting[:_WAITING_SHOWN]]:
                bar: list[RenderableType] = []
                if is_wide:
                    bar = [
                        Text()
                        if state.state != "running"
                        else ProgressBar(total=1.0, completed=state.fraction or 0.0, pulse=state.fraction is None)
                    ]
                grid.add_row(
                    Text(state.name),
                    Text(state.state, style=_STYLES[state.state]),
                    *bar,
                    Text(f"{state.step:,}/{state.total_steps:,}" if state.total_steps else ""),
                    Text("" if state.loss is None else f"{state.loss:.3f}"),
                    Text("" if state.tokens_per_second is None else compact(state.tokens_per_second)),
                    Text("" if state.remaining_s is None else duration(state.remaining_s)),
                )
            return Group(grid, Text(self._counts(stages, len(waiting)), style="dim"))

    def _counts(self, stages: list[StageState], waiting: int) -> str:
        state = self._state
        done = sum(stage.state == "done" for stage in stages)
        cached = sum(stage.state == "cached" for stage in stages)
        parts = [f"{state.complete} of {state.num_trials} trials done"]
        parts += [f"{state.failed} failed"] if state.failed else []
        parts += [f"{state.pruned} pruned"] if state.pruned else []
        parts += [f"stages: {done} done, {cached} from the store, {waiting} waiting"]
        parts += [duration(time.monotonic() - self._start)]
        return f"{printable(state.name)}: " + "; ".join(parts)


def progress_for(console: Console) -> RichProgress | PlainProgress:
    """A live table where ``console`` is a terminal, lines where it is a pipe or a file."""
    return RichProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(console)


def _numbers(state: StageState) -> str:
    parts = [f"step {state.step:,} of {state.total_steps:,}"]
    parts += [] if state.loss is None else [f"loss {state.loss:.4g}"]
    parts += [] if state.tokens_per_second is None else [f"{state.tokens_per_second:,.0f} tokens/s"]
    parts += [] if state.remaining_s is None else [f"{duration(state.remaining_s)} left"]
    return ", ".join(parts)


def _said(event: events.Event) -> str:
    """An event in words; empty for one that adds nothing to those before it."""
    match event:
        case events.StudyStarted():
            return f"study {event.name}: {event.num_trials} trials, in {event.folder}"
        case events.StudyStopping():
            return f"stopping: {event.reason}"
        case events.StudyFinished():
            complete = sum(outcome.state == "complete" for outcome in event.outcomes)
            pruned = sum(outcome.state == "pruned" for outcome in event.outcomes)
            told = f"study finished: {complete} trials complete, {len(event.outcomes) - complete - pruned} failed"
            return f"{told}, {pruned} pruned" if pruned else told
        case events.StageQueued():
            return f"{event.stage}: queued"
        case events.StageStarted():
            return f"{event.stage}: started"
        case events.StageCached():
            return _with_outcome(f"{event.stage}: in the store", what_came_of(event.stage.kind, event.result))
        case events.StageFinished():
            told = f"{event.stage}: done in {duration(event.wall_time_s)}"
            return _with_outcome(told, what_came_of(event.stage.kind, event.result))
        case events.StageFailed():
            return f"{event.stage}: FAILED: {event.error}"
        case events.StageRetried():
            return f"{event.stage}: try {event.attempt} of {event.retries} more from its last checkpoint: {event.error}"
        case events.TrialStarted():
            return f"trial {event.number} ({event.label}): started"
        case events.TrialFinished():
            outcome = event.outcome
            score = what_came_of("evaluation", outcome.results.get("evaluation", {}))
            told = _with_outcome(f"trial {outcome.number} ({outcome.label}): complete", score)
            return _with_outcome(told, ", ".join(f"violates {broken}" for broken in outcome.violations))
        case events.TrialFailed():
            outcome = event.outcome
            return f"trial {outcome.number} ({outcome.label}): {outcome.state.upper()}: {outcome.error}"
    return ""


def _with_outcome(told: str, outcome: str) -> str:
    return f"{told}, {outcome}" if outcome else told
