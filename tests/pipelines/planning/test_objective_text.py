"""Test text chooses nothing: refused, moved to validation text, or gone on with where it was begun so."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.planning.objective_text import settle_objective_text
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.store.trial_record import save_trials
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study

TPE = ["search.sampler=tpe", "search.num_trials=4"]


def _begin(study: Study, store: Store) -> None:
    folder = study_folder(study, store)
    folder.mkdir(parents=True)
    save_trials(folder, [])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_search_by_scores_on_test_text_is_refused_and_the_ways_out_work(store: Store) -> None:
    study = resolve_study("smoke", [*TPE, "search.split=test"])
    with pytest.raises(ConfigurationError, match="no text is left to test it on") as refused:
        settle_objective_text(study, store)
    for way in ("search.split", "final={seeds: [1, 2, 3]}", "search.allow_test_objective=true"):
        assert way in str(refused.value)
    without = resolve_study("smoke", TPE)
    assert settle_objective_text(without, store) == (without, None)
    assert without.split == "validation"
    with_final = resolve_study("smoke", [*TPE, "final={seeds: [1, 2, 3]}"])
    assert settle_objective_text(with_final, store) == (with_final, None)
    allowed = resolve_study("smoke", [*TPE, "search.split=test", "search.allow_test_objective=true"])
    assert settle_objective_text(allowed, store) == (allowed, None)
    assert allowed.split == "test"


def test_one_that_was_begun_on_test_text_goes_on_with_a_warning(store: Store) -> None:
    on_test = resolve_study("smoke", [*TPE, "search.split=test"])
    _begin(on_test, store)
    for again in (resolve_study("smoke", TPE), on_test):
        settled, note = settle_objective_text(again, store)
        assert settled.split == "test"
        assert study_folder(settled, store) == study_folder(on_test, store)
        assert note is not None
        assert "goes on so" in note
    renamed = resolve_study("smoke", [*TPE, "name=anew"])
    assert settle_objective_text(renamed, store) == (renamed, None)


def test_a_search_under_validation_text_is_not_taken_for_the_older_one(store: Store) -> None:
    study = resolve_study("smoke", TPE)
    _begin(resolve_study("smoke", [*TPE, "search.split=test"]), store)
    _begin(study, store)
    assert settle_objective_text(study, store) == (study, None)


def test_of_a_random_search_on_test_text_it_is_said_that_its_best_is_too_good_there(store: Store) -> None:
    drawn = ["search.sampler=random", "search.num_trials=4"]
    for overrides in (drawn, [*drawn, "search.split=test"]):
        study = resolve_study("smoke", overrides)
        settled, note = settle_objective_text(study, store)
        assert settled == study
        assert note is not None
        assert "draws 4 trials at random" in note
    ways = (
        "final={seeds: [1, 2, 3]}",
        "search.split=validation",
        "search.allow_test_objective=true",
        "search.objectives=[{metric: validation_loss}]",
    )
    for way in ways:
        study = resolve_study("smoke", [*drawn, way])
        assert settle_objective_text(study, store) == (study, None)
    assert all(way in note for way in ways[:2])


def test_a_grid_and_a_search_by_loss_choose_by_no_score(store: Store) -> None:
    by_loss = [*TPE, "search.objectives=[{metric: validation_loss, direction: minimize}]"]
    for overrides in ([], by_loss):
        study = resolve_study("smoke", overrides)
        assert settle_objective_text(study, store) == (study, None)
        assert study.split == "test"
