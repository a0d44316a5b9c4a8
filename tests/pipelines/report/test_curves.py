"""Thinned logs draw the same picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.curves import FEWEST_POINTS, MOST_POINTS, curves_of, points_for, rounded, thinned
from pipelines.store.refs import StageRef

MODEL = StageRef("language_model", "m")


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=300), st.integers(3, 60))
def test_it_keeps_the_ends_and_the_order(values: list[float], limit: int) -> None:
    chosen = thinned(values, limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(len(values), limit)
    if values:
        assert chosen[0] == 0
        assert chosen[-1] == len(values) - 1


def test_a_spike_is_kept() -> None:
    values = [math.exp(-step / 300) for step in range(2000)]
    values[1234] = 9.0
    assert 1234 in thinned(values, 50)


def test_a_divergence_is_kept() -> None:
    values = [1.0] * 2000
    values[1500] = 50.0
    values[1700] = math.nan
    assert {1500, 1700} <= set(thinned(values, 100))


def test_few_values_stay_as_they_are() -> None:
    assert thinned([3.0, 1.0, 2.0], 10) == [0, 1, 2]
    assert thinned([], 10) == []


def test_many_trainings_share_the_points_of_a_page() -> None:
    assert points_for(1) == points_for(10) == MOST_POINTS
    assert points_for(500) < MOST_POINTS
    assert points_for(100_000) == FEWEST_POINTS


def test_a_log_is_read_by_split_with_gaps_for_what_is_missing(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "flops": 10.0, "time": 0.1, "split": "train", "metrics": {"loss": 3.123456789, "plateau": 0.0}},
        {"step": 2, "flops": 20.0, "time": 0.2, "split": "train", "metrics": {"loss": None, "fidelity": 2.0}},
        {"step": 2, "flops": 20.0, "time": 0.2, "split": "validation", "metrics": {"loss": 2.5}},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "fl')
    curves = curves_of(MODEL, tmp_path, 100)
    assert curves is not None
    assert curves.train.flops == [10.0, 20.0]
    assert curves.train.terms == {"loss": [3.1235, None], "fidelity": [None, 2.0]}
    assert curves.validation.terms == {"loss": [2.5]}
    assert curves_of(MODEL, tmp_path / "elsewhere", 100) is None


def test_numbers_are_as_long_as_a_picture_needs() -> None:
    assert rounded(1.23456789e13) == 1.2346e13
    assert rounded(math.inf) is None
    assert rounded(None) is None
