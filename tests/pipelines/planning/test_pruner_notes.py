"""A pruner that has nothing to compare is told of before the study runs, with a setting that mends it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.planning.forecast import forecast
from pipelines.planning.planner import plan_study
from pipelines.planning.pruner_notes import pruner_notes
from pipelines.report.plan_table import summary
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study

RATES = "search.parameters=[{name: model.training.learning_rate, low: 1e-3, high: 1e-2}]"
TPE = ["search.sampler=tpe", "search.num_trials=4", RATES]
PRUNED = [*TPE, "search.pruner=median"]


def _notes(store: Store, *overrides: str) -> list[str]:
    return pruner_notes(plan_study(resolve_study("smoke", list(overrides)), store))


@pytest.mark.parametrize(("steps", "rungs", "every"), [(100, 4, 6), (100, 8, 50), (7, 2, 1)])
def test_where_trainings_are_validated_too_late_it_is_said_and_the_way_out_works(
    tmp_path: Path, steps: int, rungs: int, every: int
) -> None:
    store = Store(tmp_path)
    too_late = f"model.training.validate_every={steps // 2 + 1}"
    asked = [*PRUNED, f"model.training.num_steps={steps}", f"search.rungs={rungs}"]
    (note,) = _notes(store, *asked, too_late)
    assert note.startswith("search.pruner=median can stop no trial")
    (way,) = re.findall(r"; (model\.training\.validate_every=\d+)", note)
    assert way == f"model.training.validate_every={every}"
    assert _notes(store, *asked, way) == []
    assert _notes(store, *asked, f"model.training.validate_every={steps // 2}") == []


def test_plan_and_run_say_it_and_without_a_pruner_nobody_does(tmp_path: Path) -> None:
    store = Store(tmp_path)
    study = resolve_study("smoke", [*PRUNED, "model.training.num_steps=100"])
    (note,) = pruner_notes(plan_study(study, store))
    assert note in summary(plan_study(study, store))
    said: list[str] = []
    forecast(study, store, said.append, may_measure=False)
    assert note in said
    assert _notes(store, *TPE, "model.training.num_steps=100") == []
    (alone,) = _notes(store, *PRUNED, "model.training.num_steps=1", "model.training.warmup_steps=1")
    assert "validates in time" not in alone
