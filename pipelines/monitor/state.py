"""Where a study stands, kept up to date from its events at a cost that does not grow with its trials."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.common.numbers import printable
from pipelines.execution import events
from pipelines.monitor.pace import Pace
from pipelines.monitor.stage_state import StageState, State
from pipelines.monitor.view import StageView, StudyView, TrialView
from pipelines.store.estimate_record import planned_seconds
from pipelines.study.search_settings import Objective
from pipelines.study.stage import Stage
from pipelines.study.stage_flops import stage_flops
from pipelines.study.stage_kind import summary_of
from pipelines.study.trial import TrialOutcome

SMALL = 12
"""Studies of no more trials are shown trial by trial."""
ENDED_SHOWN = 8
FAILED_SHOWN = 2
WAITING_SHOWN = 4


@dataclass
class _Trial:
    number: int
    label: str
    stages: tuple[Stage, ...]
    outcome: TrialView | None = None


@dataclass
class StudyState:
    """All stages and trials of one study."""

    name: str = ""
    folder: str = ""
    num_trials: int = 0
    complete: int = 0
    failed: int = 0
    pruned: int = 0
    cached: int = 0
    """Trials that were complete before."""
    retries: int = 0
    stopping: str = ""
    counts: Counter[State] = field(default_factory=Counter)
    """Number of stages by state."""
    best: str = ""
    stages: dict[Stage, StageState] = field(default_factory=dict)
    running: dict[Stage, StageState] = field(default_factory=dict)
    waiting: dict[Stage, StageState] = field(default_factory=dict)
    expected_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of stages by identity, as far as a plan told them before the run."""
    has_run: bool = False
    """Whether anything had to be run."""
    _flops: float = 0.0
    _flops_to_do: float = 0.0
    _flops_cached: float = 0.0
    _objective: Objective = field(default_factory=Objective)
    _best: tuple[bool, float] | None = None
    _pace: Pace = field(default_factory=Pace)
    _trials: dict[int, _Trial] = field(default_factory=dict)
    """Those that are under way, and in a small study all."""
    _users: dict[Stage, tuple[int, int]] = field(default_factory=dict)
    """Users of each stage: the first trial that needs it, and how many do."""
    _num_known: int = 0
    _is_small: bool = True
    _ended: deque[TrialView] = field(default_factory=lambda: deque(maxlen=ENDED_SHOWN))
    _failed: deque[TrialView] = field(default_factory=lambda: deque(maxlen=FAILED_SHOWN))

    def of(self, stage: Stage) -> StageState:
        """The state of a stage; a new one where it was never heard of."""
        if stage not in self.stages:
            self.stages[stage] = StageState(printable(str(stage)), stage.kind)
            self.counts["queued"] += 1
        return self.stages[stage]

    def note(self, event: events.Event) -> None:
        """Take ``event`` into account."""
        match event:
            case events.StudyStarted():
                self.name, self.num_trials = event.name, event.num_trials
                self.folder = str(event.folder)
                self._objective = event.objectives[0]
                self.expected_s = planned_seconds(event.folder)
                self._is_small = self.num_trials <= SMALL
            case events.TrialsCounted():
                self.num_trials = event.num_trials
            case events.StudyStopping():
                self.stopping = event.reason
            case events.StageQueued():
                self.has_run = True
                state = self.of(event.stage)
                state.planned_flops = stage_flops(event.stage)
                state.expected_s = self.expected_s.get(event.stage.identity)
                self._flops_to_do += state.planned_flops
                self._set(event.stage, "queued")
            case events.StageStarted():
                self._set(event.stage, "running")
            case events.StageRetried():
                self.retries += 1
                self._set(event.stage, "queued").retries += 1
            case events.StageProgress():
                self._progress(event)
            case events.StageDropped():
                self._drop(event.stage)
            case events.StageCached():
                self._set(event.stage, "cached")
                self._flops_cached += _flops_of(event)
            case events.StageFinished():
                self._finish(event)
            case events.StageFailed():
                state = self._set(event.stage, "failed")
                state.outcome = printable(event.error)
                self._flops_to_do -= state.planned_flops * (1 - (state.fraction or 0.0))
                self._flops += state.flops
            case events.TrialStarted():
                self._num_known += 1
                self._trials[event.number] = _Trial(event.number, printable(event.label), event.graph.stages)
                for stage in event.graph.stages:
                    first, count = self._users.get(stage, (event.number, 0))
                    self._users[stage] = (first, count + 1)
            case events.TrialFinished() | events.TrialFailed():
                self._end_trial(event.outcome)

    def view(self, elapsed_s: float) -> StudyView:
        """What there is to show now."""
        running = [*self.running.values()]
        remaining_s, unpriced = self._pace.remaining_s(running, self._share_known())
        return StudyView(
            study=printable(self.name),
            folder=self.folder,
            num_trials=self.num_trials,
            complete=self.complete,
            failed=self.failed,
            pruned=self.pruned,
            cached=self.cached,
            stages={state: count for state, count in self.counts.items() if count},
            retries=self.retries,
            flops=self._flops + sum(state.flops for state in running),
            flops_to_do=max(0.0, self._flops_to_do),
            flops_cached=self._flops_cached,
            num_known=self._num_known,
            elapsed_s=elapsed_s,
            remaining_s=remaining_s,
            unpriced=unpriced,
            best=self.best,
            running=tuple(self._stage_view(stage, state) for stage, state in self.running.items()),
            waiting=tuple(state.name for state, _ in zip(self.waiting.values(), range(WAITING_SHOWN), strict=False)),
            trials=tuple(self._trial_views()),
            stopping=self.stopping,
        )

    def _set(self, stage: Stage, new: State) -> StageState:
        state = self.of(stage)
        self.counts[state.state] -= 1
        self.counts[new] += 1
        state.state = new
        self._leave(stage)
        if new == "running":
            self.running[stage] = state
            self._pace.parallel = max(self._pace.parallel, len(self.running))
        elif new == "queued":
            self.waiting[stage] = state
            self._pace.note(self._pace.waiting, state)
        return state

    def _leave(self, stage: Stage) -> None:
        self.running.pop(stage, None)
        if stage in self.waiting:
            self._pace.note(self._pace.waiting, self.waiting.pop(stage), -1)

    def _progress(self, event: events.StageProgress) -> None:
        state = self.of(event.stage)
        if state.state != "running":
            self._set(event.stage, "running")
        state.note(event)
        if not state.planned_flops and event.flops and event.step and event.total_steps:
            # Its price could not be told beforehand; its own count says it now.
            state.planned_flops = event.flops / event.step * event.total_steps
            self._flops_to_do += state.planned_flops

    def _finish(self, event: events.StageFinished) -> None:
        state = self._set(event.stage, "done")
        self._flops_to_do -= state.planned_flops
        state.planned_flops = _flops_of(event) or state.planned_flops
        self._flops_to_do += state.planned_flops
        self._flops += state.planned_flops
        state.wall_time_s = event.wall_time_s
        state.outcome = summary_of(event.stage.kind, event.result)
        self._pace.note(self._pace.ended, state)

    def _drop(self, stage: Stage) -> None:
        state = self.stages.pop(stage, None)
        if state is not None:
            self.counts[state.state] -= 1
            self._leave(stage)
            self._flops_to_do -= state.planned_flops

    def _end_trial(self, outcome: TrialOutcome) -> None:
        known = self._trials.pop(outcome.number, None)
        stages = known.stages if known else outcome.graph.stages if outcome.graph else ()
        if outcome.state == "complete":
            self.complete += 1
            self.cached += outcome.cached
            self._rate(outcome)
        elif outcome.state == "pruned":
            self.pruned += 1
        else:
            self.failed += 1
        done = sum(1 for stage in stages if self._is_done(stage))
        view = TrialView(
            number=outcome.number,
            label=printable(outcome.label),
            state=outcome.state,
            stages_done=done,
            num_stages=len(stages),
            note=printable(_reason(outcome)),
        )
        if self._is_small:
            self._trials[outcome.number] = _Trial(outcome.number, view.label, stages, view)
        if not outcome.cached:
            self._ended.append(view)
        if outcome.state in ("failed", "invalid"):
            self._failed.append(view)

    def _rate(self, outcome: TrialOutcome) -> None:
        """Keep the best trial of the search by the study's first objective; one that violates no constraint is better.

        What is trained again afterwards is scored on other text, with other seeds: it is no better by a higher score.
        """
        if not outcome.values or outcome.role != "search":
            return
        sign = 1.0 if self._objective.direction == "maximize" else -1.0
        rating = (not outcome.violations, sign * outcome.values[0])
        if self._best is None or rating > self._best:
            self._best = rating
            violating = f" (violates {', '.join(outcome.violations)})" if outcome.violations else ""
            self.best = printable(f"{outcome.label}, {_value(self._objective, outcome)}{violating}")

    def _trial_views(self) -> list[TrialView]:
        if self._is_small:
            return [self._trial_view(trial) for _, trial in sorted(self._trials.items())]
        # Failed trials come last: a screen that is too small for all of them shows the last.
        ended = [view for view in self._ended if view not in self._failed]
        return [*ended, *self._failed]

    def _trial_view(self, trial: _Trial) -> TrialView:
        if trial.outcome is not None:
            return trial.outcome
        running = [self.stages[stage].name for stage in trial.stages if stage in self.running]
        done = sum(self._is_done(stage) for stage in trial.stages)
        return TrialView(
            number=trial.number,
            label=trial.label,
            state="running" if running else "waiting",
            stages_done=done,
            num_stages=len(trial.stages),
            note=", ".join(running),
        )

    def _stage_view(self, stage: Stage, state: StageState) -> StageView:
        trial, num_trials = self._users.get(stage, (None, 1))
        return StageView(
            name=stage.name,
            label=state.name,
            step=state.step,
            total_steps=state.total_steps,
            loss=state.loss,
            tokens_per_second=state.tokens_per_second,
            mb_per_second=state.mb_per_second,
            remaining_s=state.remaining_s,
            retries=state.retries,
            trial=trial,
            num_trials=num_trials,
        )

    def _is_done(self, stage: Stage) -> bool:
        return stage in self.stages and self.stages[stage].state in ("cached", "done")

    def _share_known(self) -> float:
        """Share of the trials still to end whose stages are known."""
        open_trials = self.num_trials - self.complete - self.failed - self.pruned
        known = sum(trial.outcome is None for trial in self._trials.values())
        return min(1.0, known / open_trials) if open_trials > 0 else 1.0


def _flops_of(event: events.StageCached | events.StageFinished) -> float:
    return float(event.result.get("training_flops") or 0.0)


def _reason(outcome: TrialOutcome) -> str:
    if outcome.state != "complete":
        return outcome.error or ""
    found = [summary_of("evaluation", outcome.results.get("evaluation", {}))]
    return ", ".join(filter(None, [*found, *(f"violates {broken}" for broken in outcome.violations)]))


def _value(objective: Objective, outcome: TrialOutcome) -> str:
    if objective.metric == "brierlm":
        return summary_of("evaluation", outcome.results.get("evaluation", {})) or f"{outcome.values[0]:.4g}"
    return f"{objective.metric.replace('_', ' ')} {outcome.values[0]:.4g}"
