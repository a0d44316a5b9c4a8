"""What happens in a study, in words: a line for what is worth one."""

from __future__ import annotations

from pipelines.common.numbers import duration
from pipelines.execution import events
from pipelines.monitor.stage_state import StageState
from pipelines.monitor.state import StudyState
from pipelines.monitor.view import Level
from pipelines.study.stage_kind import summary_of

LARGE = 20
"""Studies of more trials are told by their trials; their stages only where one of them fails or is tried again."""


def said_of(event: events.Event, state: StudyState) -> tuple[str, Level] | None:
    """An event as a line and how much it matters; None for one that adds nothing to those before it.

    Args:
        state: the study's, the event taken into account.
    """
    match event:
        case events.StudyStarted():
            return f"study {event.name}: {event.num_trials} trials, in {event.folder}", "info"
        case events.StudyStopping():
            return stopping(event.reason), "warning"
        case events.StudyFinished():
            return _finished(event, state), "info"
        case events.StageFailed():
            return f"{event.stage}: FAILED: {event.error}", "error"
        case events.StageRetried():
            again = f"try {event.attempt} of {event.retries} more from its last checkpoint"
            return f"{event.stage}: {again}: {event.error}", "warning"
        case events.StageWaiting():
            return f"{event.stage}: {event.reason}", "warning"
        case events.TrialFailed():
            outcome = event.outcome
            level: Level = "warning" if outcome.state == "pruned" else "error"
            return f"trial {outcome.number} ({outcome.label}): {outcome.state.upper()}: {outcome.error}", level
        case events.TrialFinished():
            return None if event.outcome.cached and _is_large(state) else (_complete(event), "good")
    return None if _is_large(state) else _of_stage(event)


def stopping(reason: str) -> str:
    """What a polite stop means, in one line."""
    return f"{reason}: running stages save a checkpoint and end, nothing new is begun; once more ends at once"


def tenth(state: StageState) -> str:
    """How far a stage has come."""
    parts = [f"{'step' if state.mb_per_second is None else 'part'} {state.step:,} of {state.total_steps:,}"]
    parts += [] if state.mb_per_second is None else [f"{state.mb_per_second:.3g} MB/s"]
    parts += [] if state.loss is None else [f"loss {state.loss:.4g}"]
    parts += [] if state.tokens_per_second is None else [f"{state.tokens_per_second:,.0f} tokens/s"]
    parts += [] if state.remaining_s is None else [f"{duration(state.remaining_s)} left"]
    return f"{state.name}: {', '.join(parts)}"


def _is_large(state: StudyState) -> bool:
    return state.num_trials > LARGE


def _of_stage(event: events.Event) -> tuple[str, Level] | None:
    match event:
        case events.StageStarted():
            return f"{event.stage}: started", "info"
        case events.StageCached():
            told = f"{event.stage}: in the store"
            return _with_outcome(told, summary_of(event.stage.kind, event.result)), "info"
        case events.StageFinished():
            told = f"{event.stage}: done in {duration(event.wall_time_s)}"
            return _with_outcome(told, summary_of(event.stage.kind, event.result)), "info"
    return None


def _complete(event: events.TrialFinished) -> str:
    outcome = event.outcome
    score = summary_of("evaluation", outcome.results.get("evaluation", {}))
    told = _with_outcome(f"trial {outcome.number} ({outcome.label}): complete", score)
    return _with_outcome(told, ", ".join(f"violates {broken}" for broken in outcome.violations))


def _finished(event: events.StudyFinished, state: StudyState) -> str:
    count = len(event.outcomes)
    pruned = sum(outcome.state == "pruned" for outcome in event.outcomes)
    complete = sum(outcome.state == "complete" for outcome in event.outcomes)
    ends = [f"{complete} complete", f"{count - complete - pruned} failed"]
    ends += [f"{pruned} pruned"] if pruned else []
    has_failed = any(outcome.state == "failed" for outcome in event.outcomes)
    again = "; --retry-failed tries failed ones again" if has_failed else ""
    if not state.has_run:
        return (
            f"everything is there: the study's {count} trials ended before ({', '.join(ends)}), nothing was run"
            f"{again}; a larger search.num_trials or more choices of a grid add trials"
        )
    before = f", {state.cached} of them before" if state.cached else ""
    return f"study finished: {ends[0]}{before}, {', '.join(ends[1:])}{again}"


def _with_outcome(told: str, outcome: str) -> str:
    return f"{told}, {outcome}" if outcome else told
