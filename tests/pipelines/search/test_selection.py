"""The best of a search: by its objectives, within its constraints, and what it began from."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.search.selection import best_trials, final_search, select
from pipelines.study.config import Study
from pipelines.study.search_settings import Objective
from pipelines.study.space import grid_points, label_of, settings_at
from pipelines.study.trial import TrialOutcome

SCORE = Objective()
FLOPS = Objective(metric="inference_flops_per_token", direction="minimize")
PARAMETERS = [
    {"name": "family", "choices": {"token": {"model.kind": "token"}, "K=2": {"model.chunk_size": 2}}},
    {"name": "model.training.learning_rate", "values": [0.001, 0.002]},
]


def _outcome(number: int, *values: float, state: Any = "complete", **more: Any) -> TrialOutcome:
    return TrialOutcome(number, f"trial {number}", {"model.head.width": number}, state, values=values, **more)


def test_the_best_come_first_and_the_earlier_of_equals() -> None:
    trials = [_outcome(0, 1.0), _outcome(1, 3.0), _outcome(2, 2.0), _outcome(3, 3.0)]
    assert [one.number for one in best_trials(trials, [SCORE], 3)] == [1, 3, 2]
    losses = [Objective(metric="validation_loss", direction="minimize")]
    assert [one.number for one in best_trials(trials, losses, 2)] == [0, 2]


def test_failed_pruned_and_forbidden_trials_are_not_chosen() -> None:
    trials = [
        _outcome(0, 9.0, violations=("autoencoder_accuracy >= 0.999 (found 0.5)",)),
        _outcome(1, state="failed"),
        _outcome(2, state="pruned"),
        _outcome(3, 1.0),
    ]
    assert [one.number for one in best_trials(trials, [SCORE], 2)] == [3]
    assert best_trials(trials[:3], [SCORE], 2) == []


def test_with_two_objectives_only_the_front_is_chosen() -> None:
    trials = [_outcome(0, 5.0, 9e6), _outcome(1, 4.0, 1e6), _outcome(2, 3.0, 2e6), _outcome(3, 4.0, 2e6)]
    assert [one.number for one in best_trials(trials, [SCORE, FLOPS], 4)] == [0, 1]


@pytest.fixture
def study() -> Study:
    search = {"sampler": "tpe", "num_trials": 2, "parameters": PARAMETERS, "each": ["family"]}
    return Study.model_validate({"name": "s", "search": search, "final": {"seeds": [7, 8]}})


def test_every_search_gives_its_best_and_its_start(study: Study) -> None:
    trials = [_outcome(0, 1.0, stratum="token"), _outcome(1, 5.0, stratum="K=2"), _outcome(2, 2.0, stratum="token")]
    # Final trials of an earlier driver choose nothing.
    trials.append(_outcome(4, 99.0, stratum="K=2", role="selected"))
    found = select(study, trials)
    assert [(one.label, one.stratum, one.role) for one in found] == [
        ("trial 2", "token", "selected"),
        ("token, untuned", "token", "untuned"),
        ("trial 1", "K=2", "selected"),
        ("K=2, untuned", "K=2", "untuned"),
    ]
    assert found[1].settings == {"model.kind": "token"}


def test_a_start_that_is_the_best_is_trained_once(study: Study) -> None:
    best = TrialOutcome(0, "token", {"model.kind": "token"}, "complete", values=(1.0,), stratum="token")
    found = select(study, [best])
    assert [(one.label, one.role) for one in found] == [("token", "selected"), ("K=2, untuned", "untuned")]


def test_the_final_trials_are_everything_with_every_seed_on_test_text(study: Study) -> None:
    assert study.final is not None
    search = final_search(select(study, [_outcome(0, 1.0, stratum="token")]), study.final)
    found = [(label_of(search, point, "s"), settings_at(search, point)) for point in grid_points(search)]
    assert [label for label, _ in found[:3]] == ["trial 0, seed=7", "trial 0, seed=8", "token, untuned, seed=7"]
    assert found[1][1] == {"model.head.width": 0, "seed": 8, "evaluation.split": "test"}
