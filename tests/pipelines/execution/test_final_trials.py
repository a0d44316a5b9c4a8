"""Studies whose best are trained again: real searches and trainings, stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.execution.events import StageFinished, StudyStarted, TrialFinished, TrialsCounted
from pipelines.execution.local_executor import LocalExecutor
from pipelines.results.final_rows import rows_of
from pipelines.search.drive import StudyInterrupted, run_study
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.sweeping import find_waste, remove
from pipelines.store.trial_record import earlier_refs
from pipelines.study.config import Final, Study
from pipelines.study.trial import TrialOutcome

Run = Callable[..., list[TrialOutcome]]
SEARCH = {
    "sampler": "tpe",
    "num_trials": 2,
    "concurrent_trials": 1,
    "split": "validation",
    # BrierLM of models as small as these is 0.
    "objectives": [{"metric": "validation_loss", "direction": "minimize"}],
    "each": ["family"],
    "parameters": [
        {"name": "family", "choices": {"token": {"model.kind": "token"}, "K=1": {"model.chunk_size": 1}}},
        {"name": "model.training.learning_rate", "low": 1e-3, "high": 1e-2, "log": True},
    ],
}


@pytest.fixture
def study(tiny_study: Callable[..., Study]) -> Study:
    return tiny_study(search=SEARCH, final={"seeds": [1, 2]})


def _told(outcomes: list[TrialOutcome]) -> list[tuple[Any, ...]]:
    return [(one.number, one.label, dict(one.settings), one.role, one.stratum, one.values) for one in outcomes]


def test_the_best_of_each_search_is_trained_again_and_scored_on_test_text(
    run: Run, store: Store, study: Study, recorder: Any
) -> None:
    outcomes = run(study)
    assert [(one.role, one.stratum) for one in outcomes] == [("search", "token"), ("search", "K=1")] * 2 + [
        (role, family) for family in ("token", "K=1") for role in ("selected", "untuned") for _ in range(2)
    ]
    assert [one.number for one in outcomes] == list(range(12))
    for one in outcomes:
        assert one.state == "complete"
        is_search = one.role == "search"
        assert one.results["evaluation"]["protocol"]["split"] == ("validation" if is_search else "test")
        assert one.experiment is not None
        assert one.experiment.seed == (0 if is_search else one.settings["seed"])
    for family, first in (("token", 4), ("K=1", 8)):
        rates = {
            one.values[0]: one.settings["model.training.learning_rate"] for one in outcomes[:4] if one.stratum == family
        }
        best = rates[min(rates)]
        assert [one.settings["model.training.learning_rate"] for one in outcomes[first : first + 2]] == [best, best]
        assert all("model.training.learning_rate" not in one.settings for one in outcomes[first + 2 : first + 4])
    records = json.loads((study_folder(study, store) / "trials.json").read_text())
    assert [record.get("role", "search") for record in records] == [one.role for one in outcomes]

    rows = rows_of(outcomes, study)
    assert [(row.trial, row.role, row.stratum) for row in rows] == [
        (one.number, one.role, one.stratum) for one in outcomes[4:]
    ]
    assert len({row.protocol_hash for row in rows}) == 1
    flops = {one.number: one.results["language_model"]["training_flops"] for one in outcomes}
    encoder = outcomes[1].results["autoencoder"]["training_flops"]
    assert [[measure.value for measure in row.measures] for row in (rows[0], rows[2], rows[4])] == [
        [2, pytest.approx(flops[0] + flops[2])],
        [],
        [2, pytest.approx(flops[1] + flops[3] + encoder)],
    ]

    again = recorder()
    assert _told(run(study, again)) == _told(outcomes)
    assert all(event.outcome.cached for event in again.events if isinstance(event, TrialFinished))


def test_a_longer_search_selects_anew_and_keeps_what_it_had(run: Run, study: Study) -> None:
    short = run(study)
    longer = study.model_copy(update={"search": study.search.model_copy(update={"num_trials": 3})})
    outcomes = run(longer)
    assert _told(outcomes[:4]) == _told(short[:4])
    assert [one.role for one in outcomes[4:6]] == ["search", "search"]
    assert [one.role for one in outcomes[6:]] == [one.role for one in short[4:]]
    assert [one.number for one in outcomes[6:]] == list(range(6, 14))


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3], [3, 1], [4]])
def test_other_seeds_are_what_is_trained_and_shown(
    run: Run, study: Study, tmp_path: Path, recorder: Any, seeds: list[int]
) -> None:
    """More seeds, fewer, others and in another order: as if the study had asked for them from the beginning."""
    run(study)
    assert study.final is not None
    other = study.model_copy(update={"final": study.final.model_copy(update={"seeds": tuple(seeds)})})
    listener = recorder()
    outcomes = run(other, listener)
    assert [one.settings["seed"] for one in outcomes[4:]] == seeds * 4
    trained = [
        event.stage.config["seed"]
        for event in listener.events
        if isinstance(event, StageFinished) and event.stage.kind == "language_model"
    ]
    assert sorted(trained) == sorted(seed for seed in seeds for _ in range(4) if seed not in (1, 2))
    executor = LocalExecutor(alone := Store(tmp_path / "alone"), "cpu")
    assert _told(run_study(other, alone, executor)) == _told(outcomes)
    executor.close()


def test_final_trials_are_kept_while_a_longer_search_may_want_them_again(
    run: Run, study: Study, store: Store, recorder: Any
) -> None:
    """Until the search has ended they stand on the leaderboard and in no list of trials: store gc must know of them."""

    def stop(event: Any) -> None:
        if isinstance(event, TrialFinished) and event.outcome.number == 4:
            os.kill(os.getpid(), signal.SIGINT)

    run(study)
    longer = study.model_copy(update={"search": study.search.model_copy(update={"num_trials": 3})})
    for _ in range(2):
        with pytest.raises(StudyInterrupted):
            run(longer, recorder(stop))
        assert find_waste(store) == []
    remove(store, find_waste(store))
    listener = recorder()
    outcomes = run(longer, listener)
    # The selection may be another one, what the searches began from is the same.
    cached = {
        event.outcome.number for event in listener.events if isinstance(event, TrialFinished) and event.outcome.cached
    }
    assert {one.number for one in outcomes if one.role == "untuned"} <= cached
    assert earlier_refs(study_folder(study, store)) == frozenset()
    without = study.model_copy(update={"search": longer.search, "final": None})
    run(without)
    assert {item.stage.kind for item in find_waste(store) if item.stage} == {
        "language_model",
        "evaluation",
        "autoencoder",
    }


@pytest.mark.parametrize(("top", "selected"), [(1, 1), (9, 2)])
def test_it_is_said_how_many_trials_there_are_once_that_is_known(
    run: Run, study: Study, recorder: Any, top: int, selected: int
) -> None:
    """No more can be selected than were tried."""
    final = {"seeds": (1,), "top": top}
    listener = recorder()
    outcomes = run(study.model_copy(update={"final": Final.model_validate(final)}), listener)
    (started,) = [event for event in listener.events if isinstance(event, StudyStarted)]
    (counted,) = [event for event in listener.events if isinstance(event, TrialsCounted)]
    assert started.num_trials == 4 + 2 * (top + 1)
    assert counted.num_trials == len(outcomes) == 4 + 2 * (selected + 1)


def test_a_search_that_was_longer_keeps_its_trials_and_counts_them(run: Run, study: Study, recorder: Any) -> None:
    run(study)
    listener = recorder()
    shorter = study.model_copy(update={"search": study.search.model_copy(update={"num_trials": 1}), "final": None})
    assert len(run(shorter, listener)) == 4
    (started,) = [event for event in listener.events if isinstance(event, StudyStarted)]
    assert started.num_trials == 4


def test_stopped_between_search_and_final_it_goes_on_with_the_same_trials(
    run: Run, study: Study, recorder: Any, tmp_path: Any
) -> None:
    def stop(event: Any) -> None:
        if isinstance(event, TrialFinished) and event.outcome.number == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StudyInterrupted):
        run(study, recorder(stop))
    stopped = run(study)
    assert [(one.number, one.role, one.state) for one in stopped[4:]] == [
        (4 + index, role, "complete")
        for index, role in enumerate(role for _ in range(2) for role in ("selected", "untuned") for _ in range(2))
    ]


def test_a_failed_search_has_no_best_but_what_it_began_from(run: Run, tiny_study: Callable[..., Study]) -> None:
    """A family whose every trial fails does not keep the others from their final trials."""
    choices = {"token": {"model.kind": "token"}, "K=3": {"model.chunk_size": 3}}
    parameters = [SEARCH["parameters"][0] | {"choices": choices}, SEARCH["parameters"][1]]  # type: ignore[index,operator]
    outcomes = run(tiny_study(search=SEARCH | {"parameters": parameters}, final={"seeds": [1]}))
    assert {(one.stratum, one.role, one.state) for one in outcomes} == {
        ("token", "search", "complete"),
        ("K=3", "search", "invalid"),
        ("token", "selected", "complete"),
        ("token", "untuned", "complete"),
        ("K=3", "untuned", "invalid"),
    }
