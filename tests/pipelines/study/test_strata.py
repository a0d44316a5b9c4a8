"""A study of several searches: which there are, what each searches, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.search_settings import Search
from pipelines.study.space import settings_at
from pipelines.study.strata import num_trials, strata

FAMILIES = {"token": {"model.kind": "token"}, "K=2": {"model.chunk_size": 2}}
PARAMETERS: list[dict[str, Any]] = [
    {"name": "family", "choices": FAMILIES},
    {"name": "model.training.num_flops", "values": [1e9, 2e9]},
    {"name": "model.training.learning_rate", "low": 1e-3, "high": 1e-2, "log": True},
    {"name": "model.head.alpha", "values": [0.5, 1.0], "when": {"family": ["K=2"]}},
]
EACH = ["family", "model.training.num_flops"]


def _search(**more: Any) -> Search:
    return Search.model_validate({"sampler": "tpe", "num_trials": 3, "parameters": PARAMETERS, "each": EACH} | more)


def test_each_combination_is_a_search_over_what_applies_to_it() -> None:
    found = strata(_search())
    assert [stratum.label for stratum in found] == [
        "token, num_flops=1e+09",
        "token, num_flops=2e+09",
        "K=2, num_flops=1e+09",
        "K=2, num_flops=2e+09",
    ]
    assert [[parameter.name for parameter in stratum.search.parameters] for stratum in found] == [
        ["model.training.learning_rate"],
        ["model.training.learning_rate"],
        ["model.training.learning_rate", "model.head.alpha"],
        ["model.training.learning_rate", "model.head.alpha"],
    ]
    assert settings_at(_search(), found[3].chosen) == {"model.chunk_size": 2, "model.training.num_flops": 2e9}


def test_trials_are_counted_by_search_and_final_ones_with_them() -> None:
    description: dict[str, Any] = {"name": "s", "search": _search().model_dump(mode="json")}
    assert num_trials(Study.model_validate(description)) == 4 * 3
    final = {"seeds": [1, 2], "top": 2}
    assert num_trials(Study.model_validate(description | {"final": final})) == 4 * 3 + 4 * 3 * 2
    # With nothing left to search a search has one trial.
    alone = _search(parameters=PARAMETERS[:1], each=["family"])
    assert num_trials(Study.model_validate({"name": "s", "search": alone.model_dump(mode="json")})) == 2


def test_a_study_of_one_search_is_as_it_was() -> None:
    (only,) = strata(Search.model_validate({"parameters": PARAMETERS[:1]}))
    assert (only.label, only.chosen, only.num_trials) == ("", {}, 2)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"each": ["families"]}, "search.each: 'families' is no parameter with choices or values"),
        ({"each": ["model.training.learning_rate"]}, "is no parameter with choices or values"),
        ({"each": ["model.training.num_flops"]}, "when names 'family', which is not in search.each"),
        (
            {"parameters": [*PARAMETERS[:3], PARAMETERS[3] | {"when": {"family": ["K=4"]}}]},
            "is one of .'K=4'., but",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _search(**more)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=1", "the seed of the search: fresh seeds are others"),
        ("final.seeds=[2,2]", "are not all different"),
        ("final.split=validation", "scored on the text that chose them"),
        ("search.split=test", "scored on the text that chose them"),
        ("search.fixed={seed: 5}", "the search sets seed, which final decides"),
    ],
)
def test_a_final_that_is_not_fresh_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        resolve_study("smoke", ["final={seeds: [1, 2]}", override])


def test_what_chooses_is_scored_on_validation_text() -> None:
    assert resolve_study("smoke").experiment().evaluation.split == "test", "nothing is chosen in a grid"
    assert resolve_study("smoke", ["final={}"]).experiment().evaluation.split == "validation"
    tpe = ["search.sampler=tpe", "search.num_trials=2"]
    assert resolve_study("smoke", tpe).experiment().evaluation.split == "validation"
    by_loss = [*tpe, "search.objectives=[{metric: validation_loss, direction: minimize}]"]
    assert resolve_study("smoke", by_loss).experiment().evaluation.split == "test"
    assert resolve_study("smoke", [*tpe, "search.split=test"]).experiment().evaluation.split == "test"
