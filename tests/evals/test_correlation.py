"""Correlations and the coverage of their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from evals.correlation import correlate


def test_known_values() -> None:
    found = correlate([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0])
    assert found.pearson == pytest.approx(0.8)
    assert found.spearman == pytest.approx(0.8)
    low, high = found.pearson_interval
    assert low == pytest.approx(-0.2796, abs=1e-3)
    assert high == pytest.approx(0.9862, abs=1e-3)


def test_spearman_sees_the_order_alone() -> None:
    x = np.arange(1.0, 9.0)
    found = correlate(x.tolist(), (-np.exp(x)).tolist())
    assert found.spearman == pytest.approx(-1.0)
    assert found.pearson > -0.95
    low, high = found.spearman_interval
    assert low == pytest.approx(-1.0)
    assert -1.0 < high < -0.8


def test_ties_share_their_rank() -> None:
    assert correlate([1, 1, 2, 3], [5, 5, 6, 7]).spearman == pytest.approx(1.0)


@pytest.mark.parametrize("truth", [0.0, 0.6, -0.9])
def test_intervals_cover(truth: float) -> None:
    chance = np.random.default_rng(3)
    hits = np.zeros(2)
    replications = 400
    for _ in range(replications):
        x, noise = chance.standard_normal((2, 20))
        y = truth * x + np.sqrt(1 - truth**2) * noise
        found = correlate(x.tolist(), y.tolist())
        # Spearman's of a normal pair (Pearson 1907).
        rank_truth = 6 / np.pi * np.arcsin(truth / 2)
        hits += [
            found.pearson_interval[0] <= truth <= found.pearson_interval[1],
            found.spearman_interval[0] <= rank_truth <= found.spearman_interval[1],
        ]
    assert (hits / replications > 0.92).all()
    assert (hits / replications < 0.985).all()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 2, 3], [1, 2, 3], "4 pairs"),
        ([1, 2, 3, 4], [1, 2, 3], "not pairs"),
        ([1, 1, 1, 1], [1, 2, 3, 4], "same for all"),
        ([1, 2, 3, float("nan")], [1, 2, 3, 4], "not finite"),
    ],
)
def test_what_cannot_be_correlated(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        correlate(first, second)
