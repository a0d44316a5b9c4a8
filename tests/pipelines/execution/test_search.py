from __future__ import annotations

from pipelines.study.search_settings import Search
from pipelines.study.space import distributions, grid_points, label_of, settings_at

CHOICES = {"token": {"model.kind": "token"}, "K=2": {"model.chunk_size": 2, "seed": 5}, "K=8": {"model.chunk_size": 8}}


def test_a_grid_has_every_combination_in_order() -> None:
    search = Search.model_validate(
        {
            "parameters": [
                {"name": "model", "choices": CHOICES, "include": ["token", "K=2"]},
                {"name": "seed", "values": [0, 1]},
            ]
        }
    )
    points = grid_points(search)
    assert [label_of(search, point, "study") for point in points] == [
        "token, seed=0",
        "token, seed=1",
        "K=2, seed=0",
        "K=2, seed=1",
    ]
    assert settings_at(search, points[3]) == {"model.chunk_size": 2, "seed": 1}, "the later parameter wins"


def test_no_parameters_are_one_trial_named_after_the_study() -> None:
    assert grid_points(Search()) == [{}]
    assert label_of(Search(), {}, "study") == "study"


def test_listed_values_keep_their_types() -> None:
    values = [1, True, "1", None, [1, 2], {"b": 1, "a": 2}]
    search = Search.model_validate({"parameters": [{"name": "x.y", "values": values}]})
    found = [settings_at(search, point)["x.y"] for point in grid_points(search)]
    assert [(type(value), value) for value in found] == [(type(value), value) for value in values]
    assert distributions(search)["x.y"].to_internal_repr('{"a": 2, "b": 1}') == 5


def test_names_are_as_short_as_they_can_be() -> None:
    search = Search.model_validate(
        {
            "sampler": "random",
            "num_trials": 1,
            "parameters": [
                {"name": "model.training.learning_rate", "low": 1e-4, "high": 1e-2, "log": True},
                {"name": "autoencoder.training.learning_rate", "low": 1e-4, "high": 1e-2},
                {"name": "model.head.width", "low": 8, "high": 64, "integer": True},
            ],
        }
    )
    point = {
        "model.training.learning_rate": 0.00123456,
        "autoencoder.training.learning_rate": 0.01,
        "model.head.width": 32,
    }
    label = "model.training.learning_rate=0.00123, autoencoder.training.learning_rate=0.01, width=32"
    assert label_of(search, point, "study") == label
