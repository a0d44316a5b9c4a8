"""Score against compute: the law, its inversion, and the scatter around it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.results.law import Law, fit, misfit

Floats = NDArray[np.float64]
COMPUTE = np.array([0.5e12, 1e12, 2e12, 4e12, 8e12])


def law_through(scores: Floats, compute: Floats = COMPUTE, error: float = 1e-3) -> Law:
    return fit(compute, scores, error**2 * np.eye(len(compute)))


@pytest.mark.parametrize("exponent", [-1.0, -0.4, 0.0, 0.3, 1.0])
def test_a_law_is_found_again_and_inverted(exponent: float) -> None:
    x = np.log(COMPUTE / 1e12)
    scores = 5.0 + 2.0 * (x if exponent == 0 else (1 - np.exp(-exponent * x)) / exponent)
    law = law_through(scores)
    assert law.exponent[0] == pytest.approx(exponent, abs=0.03)
    assert law.score(COMPUTE)[0] == pytest.approx(scores, abs=0.02)
    low, high = law.needed(law.score(np.array(3e12)))
    assert low[0] == high[0] == pytest.approx(3e12, rel=1e-6)


def test_beyond_the_points_there_are_bounds_only() -> None:
    law = law_through(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    above, below = law.needed(np.array([9.0])), law.needed(np.array([-9.0]))
    assert above[0][0] == 8e12
    assert np.isinf(above[1][0])
    assert below[0][0] == 0
    assert below[1][0] == 0.5e12
    top = law.needed(law.top)
    assert top[0][0] == top[1][0] == 8e12


def test_above_its_limit_a_law_is_not_inverted() -> None:
    scores = 10.0 - 3.0 * (COMPUTE / 1e12) ** -1.0
    low, high = law_through(scores).needed(np.array([11.0]))
    assert low[0] == 8e12
    assert np.isinf(high[0])


def test_scores_that_fall_give_a_flat_law() -> None:
    law = law_through(np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
    assert law.slope[0] == 0
    assert law.score(COMPUTE)[0] == pytest.approx(3.0)
    assert law.needed(np.array([2.0]))[1][0] == 0.5e12
    assert law.needed(np.array([4.0]))[0][0] == 8e12


def test_one_point_is_a_law_of_its_own() -> None:
    law = fit(np.array([3e12]), np.array([[4.0], [5.0]]), np.eye(1))
    low, high = law.needed(np.array([4.0, 4.0]))
    assert low.tolist() == pytest.approx([3e12, 0.0])
    assert high.tolist() == pytest.approx([3e12, 3e12])


def test_negative_scores_and_shared_errors() -> None:
    scores = np.array([-4.0, -3.0, -2.0, -1.0, 0.0])
    # One text is hard for all points: the level is unknown, the slope is not.
    law = fit(COMPUTE, scores, 4.0 + 1e-4 * np.eye(5))
    assert law.score(COMPUTE)[0] == pytest.approx(scores, abs=0.05)


@pytest.mark.parametrize(
    ("compute", "scores"), [([1.0, 2.0], [1.0, np.nan]), ([0.0, 2.0], [1.0, 2.0]), ([1.0, np.inf], [1.0, 2.0])]
)
def test_what_cannot_be_fitted(compute: list[float], scores: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        fit(np.array(compute), np.array(scores), np.eye(2))


def test_scatter_beyond_the_errors_is_estimated() -> None:
    stream = np.random.default_rng(0)
    compute = np.geomspace(1e12, 1e13, 12)
    families = [
        (compute, 5 + 2 * np.log(compute / 1e12) + stream.normal(0, 0.5, 12), 0.01 * np.eye(12)) for _ in range(3)
    ]
    scatter, freedom = misfit(families)
    assert freedom == 27
    assert 0.3 < scatter < 0.7
    assert misfit([(compute[:3], compute[:3] / 1e12, np.eye(3))]) == (0.0, 0)
    assert misfit([(compute, np.log(compute), np.eye(12))])[0] == 0
