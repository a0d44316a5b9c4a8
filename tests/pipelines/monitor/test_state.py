"""What is known of a study while it runs: states, budget, time left, best trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calm_bench.overrides import apply_settings
from pipelines.execution import events
from pipelines.monitor.state import StudyState
from pipelines.study.catalogue import resolve_study
from pipelines.study.graph import stages_for
from pipelines.study.price import price_of
from pipelines.study.search_settings import Objective
from pipelines.study.stage import Stage
from pipelines.study.stage_flops import stage_flops
from pipelines.study.trial import TrialOutcome

Course = Callable[..., Any]
MODEL = Stage("language_model", 1, {}, label="language model K=4")


def step(number: int, time: float, split: str = "train", **metrics: float) -> events.StageProgress:
    return events.StageProgress(MODEL, number, 1000, {"loss": 2.0, **metrics}, split, 0.0, 0.0, time)


def told(course: Any, *parts: list[events.Event]) -> StudyState:
    state = StudyState()
    for event in (event for part in parts for event in part):
        state.note(event)
    return state


def test_the_time_left_of_a_stage_follows_from_its_own_pace() -> None:
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


def test_the_budget_counts_what_was_in_the_store_apart(course: Course) -> None:
    study = course(4)  # token, K=1, K=2, K=4: four language models of 4e12 and three autoencoders of 2e12
    state = told(study, study.start(cached=("corpus", "tokens", "autoencoder")), study.end(0), study.run(1, step=500))
    view = state.view(10.0)
    assert view.flops_cached == pytest.approx(3 * 2e12)
    assert view.flops_to_do == pytest.approx(4 * 4e12)
    assert view.flops == pytest.approx(4e12 + 4e12 / 2)
    assert view.stages == {"cached": 5, "done": 2, "running": 1, "queued": 5}

    for event in study.fail(1, "the loss is nan"):
        state.note(event)
    view = state.view(10.0)
    assert view.flops == pytest.approx(4e12 + 4e12 / 2)
    assert view.flops_to_do == pytest.approx(3 * 4e12 + 4e12 / 2), "what a failed stage did not do is not to do"


def test_the_flops_of_a_stage_are_those_of_its_price() -> None:
    study = resolve_study("k-ablation", ["corpus.source=markov"])
    experiment = apply_settings(study.experiment(), {"model.chunk_size": 4})
    graph, price = stages_for(experiment), price_of(experiment)
    assert stage_flops(graph["language_model"]) == price.model.flops.total
    assert price.autoencoder is not None
    assert stage_flops(graph["autoencoder"]) == price.autoencoder.flops.total
    assert stage_flops(graph["evaluation"]) == 0


def test_the_time_left_of_a_study_says_what_it_does_not_know(course: Course) -> None:
    study = course(4)
    state = told(study, study.start())
    view = state.view(0.0)
    assert view.remaining_s is None
    assert view.unpriced == ("autoencoder", "evaluation", "language_model")

    for event in study.run(0, step=500):
        state.note(event)
    view = state.view(50.0)
    # Half a model of 100 s is left, and three models that wait; autoencoders and evaluations are unknown still.
    assert view.remaining_s == pytest.approx(50 + 3 * 100)
    assert view.unpriced == ("autoencoder", "evaluation")

    for event in study.end(0) + study.end(1):
        state.note(event)
    view = state.view(200.0)
    # Two autoencoders, models and evaluations of 30, 60 and 10 s, one at a time.
    assert view.remaining_s == pytest.approx(2 * (30 + 60 + 10))
    assert view.unpriced == ()
    for event in study.run(2) + study.run(3):
        state.note(event)
    assert state.view(200.0).remaining_s < 200, "two run at once now"


def test_a_plan_tells_the_time_before_anything_has_run(course: Course, tmp_path: Path) -> None:
    study = course(4)
    stages = {stage for _, _, graph in study.trials for stage in graph.stages}
    seconds = {stage.identity: {"seconds": 7.0} for stage in stages if stage.kind != "evaluation"}
    (tmp_path / "plan.json").write_text(json.dumps({"estimates": [{"stages": seconds}]}))
    view = told(study, study.start(folder=tmp_path)).view(0.0)
    assert view.remaining_s == pytest.approx(7 * 7.0)
    assert view.unpriced == ("evaluation",)
    (tmp_path / "plan.json").write_text('{"estimates": 3}')
    assert told(study, study.start(folder=tmp_path)).view(0.0).remaining_s is None


def test_the_best_trial_keeps_the_constraints_and_follows_the_objective() -> None:
    state = StudyState()
    objective = (Objective(metric="validation_loss", direction="minimize"),)
    state.note(events.StudyStarted("s", "ab", Path("s"), 9, objective))
    for number, (value, violations) in enumerate([(2.0, ()), (1.5, ()), (1.0, ("too large",)), (1.7, ())]):
        outcome = TrialOutcome(number, f"t{number}", {}, "complete", values=(value,), violations=violations)
        state.note(events.TrialFinished(outcome))
    assert state.best == "t1, validation loss 1.5"


def test_what_is_trained_again_is_not_the_best_of_the_search_and_is_counted_when_it_is_known() -> None:
    """It is scored on other text; selections may coincide or be missing, so that there are fewer than there may be."""
    state = StudyState()
    state.note(events.StudyStarted("s", "ab", Path("s"), 8, (Objective(),)))
    outcome = TrialOutcome(0, "t0", {}, "complete", values=(2.0,))
    state.note(events.TrialFinished(outcome))
    state.note(events.TrialsCounted(2))
    state.note(events.TrialFinished(replace(outcome, number=1, label="t1", values=(9.0,), role="selected")))
    view = state.view(1.0)
    assert (view.complete, view.num_trials) == (2, 2)
    assert view.best.startswith("t0")
    assert [trial.number for trial in view.trials] == [0, 1]


def test_a_stage_that_nobody_needs_any_more_leaves_the_budget(course: Course) -> None:
    study = course(4)
    state = told(study, study.start())
    model = study.trials[3][2]["language_model"]
    state.note(events.StageDropped(model))
    assert state.view(0.0).flops_to_do == pytest.approx(3 * 4e12 + 3 * 2e12)
    assert state.counts["queued"] == 10
    assert model not in state.stages


def test_a_view_of_a_large_study_stays_small(course: Course) -> None:
    study = course(200)
    state = told(study, study.start(), *(study.end(number) for number in range(100)), study.fail(100, "x" * 50))
    view = state.view(0.0)
    assert len(view.model_dump_json()) < 10_000
    assert [trial.number for trial in view.trials] == [*range(93, 100), 100]
    assert type(view).model_validate_json(view.model_dump_json()) == view
