from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from calm_bench.study_config import Study
from pipelines.engine import events
from pipelines.engine.stage_states import StudyState
from pipelines.progress import PlainProgress, RichProgress, progress_for
from pipelines.stages.stage import Stage
from pipelines.sweep.trial import TrialOutcome

STUDY = Study(name="s")
MODEL = Stage("language_model", 1, {}, label="language model K=4")
OTHER = Stage("language_model", 1, {"seed": 1}, label="language model [red]K=2")
FOLDER = Path("store")


def step(
    number: int, time: float, split: str = "train", stage: Stage = MODEL, **metrics: float
) -> events.StageProgress:
    return events.StageProgress(stage, number, 1000, {"loss": 2.0, **metrics}, split, 0.0, 0.0, time)


def plain(told: list[events.Event]) -> list[str]:
    file = io.StringIO()
    with PlainProgress(Console(file=file, width=60)) as progress:
        for event in told:
            progress.handle(event)
    return file.getvalue().splitlines()


def table(told: list[events.Event], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    progress = RichProgress(console)
    for event in told:
        progress.handle(event)
    with console.capture() as capture:
        console.print(progress.table())
    return capture.get()


def test_the_time_left_follows_from_the_pace_of_the_stage_itself() -> None:
    state = StudyState()
    state.note(step(100, 30.0))
    assert state.of(MODEL).remaining_s is None  # one point is no pace
    state.note(step(300, 50.0, tokens_per_second=4000.0))
    state.note(step(300, 52.0, "validation", loss=9.0))
    stage = state.of(MODEL)
    assert stage.remaining_s == pytest.approx(700 * (52.0 - 30.0) / 200)
    assert (stage.loss, stage.tokens_per_second, stage.fraction) == (2.0, 4000.0, 0.3)
    # A resumed stage tells old lines again: the display does not go backwards.
    state.note(step(120, 32.0))
    assert stage.step == 300


def test_plain_progress_is_one_line_an_event_and_one_a_tenth(make_outcome: Callable[..., TrialOutcome]) -> None:
    outcome = make_outcome(STUDY, 3, "K=4", {})
    lines = plain(
        [
            events.StudyStarted("s", "ab", FOLDER, 5),
            events.StageQueued(MODEL),
            events.StageStarted(MODEL, FOLDER),
            *(step(number, number / 10, tokens_per_second=4000.0) for number in range(0, 1001, 20)),
            events.StageFinished(MODEL, FOLDER, {"final_loss": 1.25}, 100.0),
            events.TrialFinished(outcome),
        ]
    )
    told = [line.split("] ", 1)[1] for line in lines]
    assert told[:3] == ["study s: 5 trials, in store", "language model K=4: queued", "language model K=4: started"]
    assert told[3] == "language model K=4: step 100 of 1,000, loss 2, 4,000 tokens/s, 1:30 left"
    assert len(told) == 3 + 10 + 2
    assert told[-2:] == [
        "language model K=4: done in 1:40, final loss 1.25",
        "trial 3 (K=4): complete, BrierLM 10.16±0.40",
    ]


def on_plateau(number: int, is_on: bool) -> events.StageProgress:
    terms = {"fidelity": 4.0, "diversity": 2.0, "unconditional": 2.0}
    return step(number, number / 10, plateau=float(is_on), **terms)


def test_a_plateau_is_warned_of_once() -> None:
    told: list[events.Event] = [on_plateau(n, n in (300, 320, 400)) for n in range(20, 500, 20)]
    # A resumed stage tells old lines again.
    warnings = [line for line in plain([*told, *told]) if "WARNING" in line]
    assert len(warnings) == 1
    assert "language model K=4: WARNING: plateau at step 300" in warnings[0]

    file = io.StringIO()
    with RichProgress(Console(file=file, width=200, force_terminal=True, color_system=None)) as progress:
        for event in told:
            progress.handle(event)
    assert file.getvalue().count("WARNING: plateau") == 1


def test_a_line_stays_a_line_whatever_an_error_holds() -> None:
    lines = plain(
        [events.StageFailed(OTHER, "first\nsecond [bold] \x1b[2J and a very long explanation of what went wrong")]
    )
    assert len(lines) == 1
    assert "language model [red]K=2: FAILED: first second [bold] �[2J and" in lines[0]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_shows_what_runs_what_failed_and_what_waits(width: int) -> None:
    waiting = [Stage("evaluation", 1, {"n": n}, label=f"evaluation {n}") for n in range(9)]
    text = table(
        [
            events.StudyStarted("s", "ab", FOLDER, 5),
            events.StageCached(Stage("corpus", 1, {}), FOLDER, {}),
            *(events.StageQueued(stage) for stage in waiting),
            events.StageStarted(MODEL, FOLDER),
            step(100, 10.0),
            step(200, 20.0, loss=1.5, tokens_per_second=21_034.0),
            events.StageFailed(OTHER, "diverged"),
        ],
        width,
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    (row,) = [line for line in lines if "K=4" in line]
    assert row.startswith("language model K=4")
    assert ("━━━━" in row) is (width > 100)
    assert row.split()[-4:] == ["200/1,000", "1.500", "21.0k", "1:20"]
    assert any("[red]K=2" in line and "failed" in line for line in lines)
    assert sum("queued" in line for line in lines) == 4
    assert "0 of 5 trials done" in lines[-1]
    assert "0 done, 1 from the store, 9 waiting" in lines[-1]


def test_the_live_table_leaves_only_the_trials_behind(make_outcome: Callable[..., TrialOutcome]) -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    failed = TrialOutcome(1, "K=3", {}, "invalid", error="256 is not a multiple of 3")
    told: list[Any] = [
        events.StageStarted(MODEL, FOLDER),
        step(10, 1.0),
        events.TrialFinished(make_outcome(STUDY, 0, "K=4", {})),
        events.TrialFailed(failed),
    ]
    with RichProgress(console) as progress:
        for event in told:
            progress.handle(event)
        progress.message("[not markup]")
    text = file.getvalue()
    assert "trial 0 (K=4): complete, BrierLM 13.16±0.40" in text
    assert "trial 1 (K=3): INVALID: 256 is not a multiple of 3" in text
    assert "[not markup]" in text


def test_a_pipe_gets_lines_and_a_terminal_a_table() -> None:
    assert isinstance(progress_for(Console(file=io.StringIO())), PlainProgress)
    terminal = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm-256color"})
    assert isinstance(progress_for(terminal), RichProgress)
