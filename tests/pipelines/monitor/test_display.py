"""What is shown beside a run: lines in a pipe, a panel in a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from pipelines.execution import events
from pipelines.monitor.display import PlainProgress, RichProgress, progress_for
from pipelines.monitor.panel import panel
from pipelines.monitor.tracker import Tracker
from pipelines.monitor.view import StudyView
from pipelines.study.config import Study
from pipelines.study.stage import Stage
from pipelines.study.trial import TrialOutcome

Course = Callable[..., Any]
MODEL = Stage("language_model", 1, {}, label="language model K=4")
OTHER = Stage("language_model", 1, {"seed": 1}, label="language model [red]K=2")
FOLDER = Path("store")


def step(number: int, time: float, **metrics: float) -> events.StageProgress:
    return events.StageProgress(MODEL, number, 1000, {"loss": 2.0, **metrics}, "train", 0.0, 0.0, time)


def plain(told: list[events.Event]) -> list[str]:
    file = io.StringIO()
    with PlainProgress(Console(file=file, width=60)) as progress:
        for event in told:
            progress.handle(event)
    return [line.split("] ", 1)[1] for line in file.getvalue().splitlines()]


def view_of(*parts: list[events.Event]) -> StudyView:
    tracker = Tracker()
    for event in (event for part in parts for event in part):
        tracker.handle(event)
    return tracker.view()


def lines_of(view: StudyView, width: int, height: int = 24, note: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(panel(view, width, height, note))
    return capture.get().splitlines()


def test_plain_progress_is_one_line_an_event_and_one_a_tenth(make_outcome: Callable[..., TrialOutcome]) -> None:
    told = plain(
        [
            events.StudyStarted("s", "ab", FOLDER, 5),
            events.StageQueued(MODEL),
            events.StageStarted(MODEL, FOLDER),
            *(step(number, number / 10, tokens_per_second=4000.0) for number in range(0, 1001, 20)),
            events.StageFinished(MODEL, FOLDER, {"final_loss": 1.25}, 100.0),
            events.TrialFinished(make_outcome(Study(name="s"), 3, "K=4", {})),
        ]
    )
    assert told[:2] == ["study s: 5 trials, in store", "language model K=4: started"]
    assert told[2] == "language model K=4: step 100 of 1,000, loss 2, 4,000 tokens/s, 1:30 left"
    assert len(told) == 2 + 9 + 2, "the tenth tenth is the end, which has a line of its own"
    assert told[-2:] == [
        "language model K=4: done in 1:40, final loss 1.25",
        "trial 3 (K=4): complete, BrierLM 10.16±0.40",
    ]


def test_a_short_stage_tells_no_tenths() -> None:
    told = plain([events.StageStarted(MODEL, FOLDER), *(step(number, number / 1000) for number in range(0, 1001, 20))])
    assert told == ["language model K=4: started"]


def test_a_large_study_tells_its_trials_and_what_goes_wrong(course: Course) -> None:
    study = course(200)
    told = study.start()
    told += [event for number in range(8, 12) for event in study.end(number, cached=True)]
    told += [*study.end(0), *study.run(4), *study.fail(4, "the loss is nan")]
    told.append(events.StageRetried(study.trials[5][2]["language_model"], "its worker was lost", 1, 1))
    assert plain(told) == [
        "study k-ablation: 200 trials, in store",
        "trial 0 (token, seed=0): complete, BrierLM 14.50±0.70",
        "token model: FAILED: the loss is nan",
        "trial 4 (token, seed=4): FAILED: the loss is nan",
        "token model: try 1 of 1 more from its last checkpoint: its worker was lost",
    ]


def test_a_study_that_has_everything_says_so_in_one_line(course: Course) -> None:
    study = course(24)
    told: list[events.Event] = study.start(cached=("corpus", "tokens", "autoencoder", "language_model", "evaluation"))
    told += [event for number in range(24) for event in study.end(number, cached=True)]
    outcomes = tuple(event.outcome for event in told if isinstance(event, events.TrialFinished))
    first, last = plain([*told, events.StudyFinished(outcomes)])
    assert first == "study k-ablation: 24 trials, in store"
    assert last == (
        "everything is there: the study's 24 trials ended before (24 complete, 0 failed), nothing was run; "
        "a larger search.num_trials or more choices of a grid add trials"
    )


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


def test_that_a_study_stops_is_said_once_and_at_once() -> None:
    file = io.StringIO()
    with PlainProgress(Console(file=file)) as progress:
        progress.stopping("Ctrl-C")
        progress.handle(events.StudyStopping("Ctrl-C"))
    (line,) = file.getvalue().splitlines()
    assert "Ctrl-C: running stages save a checkpoint and end, nothing new is begun; once more ends at once" in line
    assert progress.tracker.view().stopping == "Ctrl-C"


@pytest.mark.parametrize("num_trials", [4, 200])
def test_the_panel_fits_into_every_terminal(course: Course, num_trials: int) -> None:
    study = course(num_trials)
    told = [*study.start(), *study.end(0), *study.run(1), *study.run(2)]
    if num_trials > 4:
        told += [event for number in range(4, 40) for event in study.end(number)]
        told += [event for number in range(40, 80) for event in study.run(number)]
    told += study.fail(3, "the loss is nan at step 300: " + "日本語 " * 30)
    view = view_of(told)
    for width in (20, 50, 80, 120):
        lines = lines_of(view, width)
        assert len(lines) < 24
        assert max(map(cell_len, lines)) <= width
        text = "\n".join(lines)
        assert "k-ablation" in lines[0]
        if width >= 50:
            assert "the loss is nan" in text
            assert "500/1,000" in text


def test_the_panel_of_a_small_study_shows_every_trial(course: Course) -> None:
    study = course(4)
    lines = lines_of(view_of(study.start(), study.end(0), study.run(2)), 100)
    assert lines[0].startswith("k-ablation: 1 of 4 trials done; ")
    assert "left" in lines[0]
    assert lines[1] == "Stages: 1 running, 8 waiting, 2 done, 2 from the store"
    assert lines[2].startswith("Training FLOPs: ━━━━━")
    assert lines[2].endswith("27 %, 6.00e12 of 2.20e13")
    assert lines[3] == "Best so far: token, BrierLM 14.50±0.70"
    (row,) = [line for line in lines if line.startswith("language model K=2")]
    assert row.split()[-4:] == ["500/1,000", "2.500", "21.0k", "50", "s"][-4:]
    assert [line.split()[:3] for line in lines[-4:]] == [
        ["0", "token", "complete"],
        ["1", "K=1", "waiting"],
        ["2", "K=2", "running"],
        ["3", "K=4", "waiting"],
    ]


def test_the_panel_of_a_large_study_shows_what_runs_and_what_ended_last(course: Course) -> None:
    study = course(200)
    told = [*study.start(), *(event for number in range(60) for event in study.end(number)), *study.fail(60, "nan")]
    lines = lines_of(view_of(told, study.run(61), study.run(62)), 100)
    assert "60 of 200 trials done, 1 failed" in lines[0]
    assert [line.split()[4] for line in lines if line.startswith("language model")] == ["61", "62"]
    assert lines[-1].split()[:4] == ["60", "K=1,", "seed=10", "failed"]
    assert "59 K=1, seed=9" in lines[-2]
    assert sum("complete" in line for line in lines) == 7


def test_a_note_is_never_cut_off(course: Course) -> None:
    study = course(4)
    note = "no driver is at work since 10:00; calm-bench run k-ablation --store somewhere-else continues"
    lines = lines_of(view_of(study.start()), 40, note=note)
    assert " ".join(" ".join(lines[-4:]).split()).endswith(note)
    assert len(lines) < 24


def test_a_terminal_keeps_what_went_wrong_and_nothing_else() -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    with RichProgress(console) as progress:
        for event in (
            events.StudyStarted("s", "ab", FOLDER, 2),
            events.StageStarted(MODEL, FOLDER),
            events.TrialFailed(TrialOutcome(1, "K=3", {}, "invalid", error="256 is not a multiple of 3")),
        ):
            progress.handle(event)
        progress.message("[not markup]")
    text = file.getvalue()
    assert "trial 1 (K=3): INVALID: 256 is not a multiple of 3" in text
    assert "[not markup]" in text
    assert "K=4: started" not in text


def test_a_pipe_gets_lines_and_a_terminal_a_panel() -> None:
    assert isinstance(progress_for(Console(file=io.StringIO())), PlainProgress)
    terminal = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm-256color"})
    assert isinstance(progress_for(terminal), RichProgress)
