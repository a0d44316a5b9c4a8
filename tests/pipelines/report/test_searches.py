"""What a search says about its parameters."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pipelines.report.searches import ENOUGH, search_of, value_at
from pipelines.store.trial_record import TrialRecord
from pipelines.study.search_settings import Parameter, Search

RATE = Parameter(name="model.training.learning_rate", low=1e-4, high=1e-2, log=True)
WIDTH = Parameter(name="model.hidden_size", values=(32, 64))
MODEL = Parameter(
    name="model",
    choices={
        "token": {"model.kind": "token"},
        "K=2": {"model.chunk_size": 2},
        "K=2 wide": {"model.chunk_size": 2, "autoencoder.hidden_size": 128},
    },
)
SEARCH = Search(sampler="tpe", num_trials=40, parameters=(RATE, WIDTH))


def trial(number: int, rate: float, width: int, value: float, **changes: Any) -> TrialRecord:
    settings = {RATE.name: rate, WIDTH.name: width}
    row: dict[str, Any] = {"label": f"trial {number}", "settings": settings, "state": "complete", "values": [value]}
    return TrialRecord(number=number, **row | changes)


def trials(count: int) -> list[TrialRecord]:
    """Scores that follow from the width alone, but for some noise."""
    chance = random.Random(0)
    widths = [64 if n % 2 else 32 for n in range(count)]
    return [trial(n, 10 ** chance.uniform(-4, -2), w, w + chance.random()) for n, w in enumerate(widths)]


def test_what_decides_the_score_is_important() -> None:
    found = search_of(SEARCH, trials(30))
    assert found is not None
    assert found.why == ""
    assert sum(found.importance.values()) == pytest.approx(1, abs=1e-3)
    assert next(iter(found.importance)) == WIDTH.name
    assert [parameter["label"] for parameter in found.parameters] == ["learning_rate", "hidden_size"]
    assert [parameter["numeric"] for parameter in found.parameters] == [True, True]


def test_too_few_trials_say_so() -> None:
    found = search_of(SEARCH, trials(ENOUGH - 1))
    assert found is not None
    assert found.importance == {}
    assert found.why.startswith(f"{ENOUGH - 1} finished trials are too few")


def test_failed_and_pruned_trials_do_not_count() -> None:
    rows = trials(ENOUGH - 1) + [trial(20, 1e-3, 64, 0.0, state="failed", values=[]) for _ in range(5)]
    found = search_of(SEARCH, rows)
    assert found is not None
    assert found.importance == {}
    assert found.points[-1]["value"] is None


def test_what_was_trained_again_is_no_point_of_the_search() -> None:
    """Its score is of other text and seeds: of few trials of a search it made enough, and their weights others."""
    final = [trial(20 + n, 1e-3, 32, 500.0, role="selected" if n % 2 else "untuned") for n in range(6)]
    found = search_of(SEARCH, trials(ENOUGH - 1) + final)
    assert found is not None
    assert found.why.startswith(f"{ENOUGH - 1} finished trials are too few")
    assert [point["trial"] for point in found.points] == list(range(ENOUGH - 1))
    alone, beside = search_of(SEARCH, trials(30)), search_of(SEARCH, trials(30) + final)
    assert alone == beside


def test_one_parameter_has_nothing_to_be_weighed_against() -> None:
    search = Search(sampler="random", num_trials=20, parameters=(RATE,))
    found = search_of(search, trials(20))
    assert found is not None
    assert "Only one" in found.why


def test_nothing_searched_is_no_search() -> None:
    assert search_of(Search(), []) is None


def test_values_outside_a_space_that_was_narrowed_are_left_out() -> None:
    found = search_of(SEARCH, [*trials(12), trial(12, 5.0, 64, 3.0), trial(13, 1e-3, 4096, 3.0)])
    assert found is not None
    assert found.why == ""


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"model.kind": "token"}, "token"),
        ({"model.chunk_size": 2}, "K=2"),
        ({"model.chunk_size": 2, "autoencoder.hidden_size": 128}, "K=2 wide"),
        ({"model.chunk_size": 2, "autoencoder.hidden_size": 96}, "K=2"),
        ({"model.chunk_size": 8}, None),
    ],
)
def test_a_choice_is_known_by_what_it_sets(settings: dict[str, Any], label: str | None) -> None:
    assert value_at(MODEL, settings) == label
