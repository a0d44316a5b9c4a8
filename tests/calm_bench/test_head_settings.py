"""The choice of a head by layers of settings: each kind has fields of its own."""

from __future__ import annotations

import pytest

from calm_bench.config import Experiment, LanguageModel
from calm_bench.head_config import DiffusionHead, EnergyHead, FlowHead
from calm_bench.overrides import ConfigurationError, apply_settings, assign, merge
from pipelines.study.catalogue import resolve_study


def test_a_head_without_a_kind_is_an_energy_head() -> None:
    assert LanguageModel.model_validate({"head": {"num_blocks": 5}}).head == EnergyHead(num_blocks=5)


@pytest.mark.parametrize(
    "settings",
    [
        {"model.head.kind": "flow", "model.head.solver": "euler"},
        {"model.head.solver": "euler", "model.head.kind": "flow"},
        {"model.head": {"kind": "flow", "solver": "euler"}},
        {"model": {"head": {"kind": "flow", "solver": "euler"}}},
    ],
    ids=["paths", "paths in another order", "mapping", "mapping of the model"],
)
def test_a_new_kind_drops_the_old_heads_settings(settings: dict[str, object]) -> None:
    energy = apply_settings(Experiment(), {"model.head.noise_size": 7, "model.head.num_blocks": 9})
    assert apply_settings(energy, settings).model.head == FlowHead(solver="euler")


@pytest.mark.parametrize("settings", [{"model.head": {"kind": "flow", "num_steps": 3}}, {"model.head.num_steps": 3}])
def test_the_same_kind_keeps_them(settings: dict[str, object]) -> None:
    flow = apply_settings(Experiment(), {"model.head.kind": "flow", "model.head.num_blocks": 9})
    assert apply_settings(flow, settings).model.head == FlowHead(num_blocks=9, num_steps=3)


def test_only_a_heads_kind_drops_anything() -> None:
    """A model's kind does not: a token model has the sizes of its chunk model."""
    lower = {"model": {"kind": "calm", "hidden_size": 12, "head": {"kind": "energy", "alpha": 1.5}}}
    upper = {"model": {"kind": "token"}}
    expected = {"model": {"kind": "token", "hidden_size": 12, "head": {"kind": "energy", "alpha": 1.5}}}
    assert merge(lower, upper) == expected
    assert assign(lower, {"model.kind": "token"}) == expected


def test_layers_are_left_alone_by_a_change_of_kind() -> None:
    lower = {"head": {"kind": "energy", "alpha": 1.5}}
    assert assign(lower, {"head.kind": "flow"}) == {"head": {"kind": "flow"}}
    assert lower == {"head": {"kind": "energy", "alpha": 1.5}}


def test_a_presets_energy_head_gives_way() -> None:
    study = resolve_study("smoke", ["model.head.kind=diffusion", "model.head.num_steps=10"])
    assert study.model.head == DiffusionHead(num_steps=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.head.kind": "flwo"}, r"^model\.head\.kind: there is no 'flwo'; did you mean 'flow'\?$"),
        ({"model.head.solver": "euler"}, r"^model\.head\.solver: unknown key; it belongs to model\.head\.kind=flow$"),
        (
            {"model.head.kind": "flow", "model.head.alpha": 1.0},
            r"^model\.head\.alpha: unknown key; it belongs to model\.head\.kind=energy$",
        ),
        ({"model.head": {"kind": "flow", "num_steps": 0}}, r"^model\.head\.num_steps: .*greater than 0, found 0$"),
        ({"model.head.kind": "flow", "model.head.solvr": 1}, r"^unknown key .*did you mean 'model\.head\.solver'"),
        ({"model.head": {"kind": "flow", "solvr": 1}}, r"^model\.head\.solvr: .*did you mean 'model\.head\.solver'"),
        ({"model.head": {"kind": "flow", "zzz": 1}}, r"^model\.head\.zzz: unknown key; known in model\.head: width,"),
        ({"model.head": {"kind": "shortcut", "num_shortcuts": 4}}, r"^model\.head: num_shortcuts 4 must stay below"),
        (
            {"model.head": {"kind": "shortcut", "num_steps": 16}},
            r"^model\.head: num_halvings 4 trains no steps as short",
        ),
        ({"model.head": {"kind": "mean_flow", "num_jumps": 4}}, r"^model\.head: num_jumps 4 must stay below"),
        ({"model.head": {"kind": "drifting", "temperatures": []}}, r"^model\.head\.temperatures: .*at least 1"),
        ({"model.head": {"kind": "custom"}}, r"^model\.head\.target: is missing$"),
        ({"model.head.objective": "noise"}, r"it belongs to model\.head\.kind=diffusion"),
    ],
)
def test_settings_of_another_head_are_refused_with_what_to_do(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        apply_settings(Experiment(), settings)
