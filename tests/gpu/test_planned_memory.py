"""What a plan says a training takes, against what its tensors take: the paper's sizes, without data."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gpu.paper_sizes import TRAININGS, as_on_a_gpu, experiment, held, planned

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Mismatch dtype")]

WITHIN = 0.10
SIZES = [("paper-s", 16), ("paper-m", 4), pytest.param("paper-l", 2, marks=pytest.mark.long)]
"""Presets, with sequences at once."""


@pytest.fixture(autouse=True)
def on_a_gpu() -> Iterator[None]:
    with as_on_a_gpu():
        yield


@pytest.mark.parametrize(("preset", "sequences"), SIZES)
@pytest.mark.parametrize("kind", TRAININGS)
def test_a_plan_is_near_what_the_tensors_take(kind: str, preset: str, sequences: int) -> None:
    described = experiment(preset, kind)
    parts = planned(described, kind, sequences).parts.parts
    found = held(described, kind, sequences) + parts["optimizer"] + parts["process"]
    assert sum(parts.values()) == pytest.approx(found, rel=WITHIN)


@pytest.mark.parametrize("kind", ["token", "energy", "flow"])
def test_a_plan_is_near_what_layers_take_that_are_computed_again(kind: str) -> None:
    described, sequences = experiment("paper-m", kind), 8
    plain = sum(planned(described, kind, sequences).parts.parts.values())
    parts = planned(described, kind, sequences, recomputes=True).parts.parts
    found = held(described, kind, sequences, recomputes=True) + parts["optimizer"] + parts["process"]
    assert sum(parts.values()) == pytest.approx(found, rel=WITHIN)
    assert sum(parts.values()) < 0.75 * plain
