"""Ranks that rows share where their scores do not differ significantly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.results.ranks import SIGNIFICANT, first_telling, shared_ranks

ROWS = st.lists(st.tuples(st.floats(-50, 100), st.floats(0, 10)), max_size=12)


def test_rows_within_their_errors_share_a_rank() -> None:
    assert shared_ranks([(14.5, 0.7), (4.4, 0.8), (4.2, 0.7), (2.7, 0.7)]) == [1, 2, 2, 2]
    assert shared_ranks([(10.5, 0.1), (10.1, 0.1), (8.1, 0.1), (4.2, 0.1)]) == [1, 2, 3, 4]


def test_a_row_may_be_level_with_two_that_differ() -> None:
    # Not transitive: the middle one is level with both, so it has the better one's rank and so has only the last not.
    assert shared_ranks([(3.0, 0.5), (1.9, 0.5), (0.9, 0.5)]) == [1, 1, 2]


def test_exact_ties_share_and_exact_scores_differ() -> None:
    assert shared_ranks([(0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (-1.0, 0.0)]) == [2, 2, 1, 4]


def test_no_rows_and_one() -> None:
    assert shared_ranks([]) == []
    assert shared_ranks([(-3.0, 1.0)]) == [1]


@pytest.mark.parametrize("row", [(math.nan, 1.0), (1.0, math.inf), (1.0, -0.1)])
def test_what_is_no_score(row: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no score"):
        shared_ranks([row])


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float, float]], chance: object) -> None:
    shuffled = list(range(len(rows)))
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    ranks = shared_ranks(rows)
    assert shared_ranks([rows[index] for index in shuffled]) == [ranks[index] for index in shuffled]


@given(ROWS)
def test_ranks_mean_what_they_say(rows: list[tuple[float, float]]) -> None:
    def better(row: tuple[float, float]) -> int:
        return sum(other[0] - row[0] > SIGNIFICANT * math.hypot(other[1], row[1]) for other in rows)

    ranks = shared_ranks(rows)
    assert ranks == [1 + max(better(other) for other in rows if other[0] >= row[0]) for row in rows]
    if rows:
        assert min(ranks) == 1


@given(ROWS)
def test_ranks_follow_the_scores(rows: list[tuple[float, float]]) -> None:
    ranked = sorted(zip(rows, shared_ranks(rows), strict=True), key=lambda pair: -pair[0][0])
    for (above, first), (below, second) in itertools.pairwise(ranked):
        assert first <= second
        if above[0] == below[0]:
            assert first == second


def test_errors_of_pairs_tell_apart_what_summed_ones_do_not() -> None:
    rows = [(10.0, 0.8), (9.0, 0.8), (8.9, 0.8)]
    paired = np.array([[0.0, 0.2, 0.2], [0.2, 0.0, 0.2], [0.2, 0.2, 0.0]])
    assert shared_ranks(rows) == [1, 1, 1]
    assert shared_ranks(rows, SIGNIFICANT * paired) == [1, 2, 2]


def test_a_noisy_row_does_not_pass_a_higher_score() -> None:
    # The first is better than the second beyond doubt, but could not be told from the noisy third.
    assert shared_ranks([(10.0, 0.1), (9.0, 0.1), (8.9, 5.0)]) == [1, 2, 2]


@given(ROWS.filter(bool), st.integers(0, 11))
def test_a_duplicate_shares_its_twin_s_rank(rows: list[tuple[float, float]], index: int) -> None:
    twin = rows[index % len(rows)]
    ranks = shared_ranks([*rows, twin])
    assert ranks[-1] == ranks[index % len(rows)]


def test_scores_clipped_to_zero_are_ranked_by_the_first_component_that_tells() -> None:
    clear, level, better, best = (
        ((0.04, 0.001), (-0.01, 0.01), (0.0, 0.01), (-0.02, 0.01)),
        ((0.041, 0.001), (-0.05, 0.01), (-0.01, 0.01), (-0.01, 0.01)),
        ((0.06, 0.001), (-0.02, 0.01), (-0.01, 0.01), (-0.01, 0.01)),
        ((0.01, 0.001), (0.01, 0.01), (0.01, 0.01), (0.01, 0.01)),
    )
    scores = [(0.0, 0.0)] * 3 + [(1.0, 0.1)]
    # Brier-1 leaves the first two open (0.001 apart, error 0.0014), and Brier-2 tells them apart.
    assert first_telling(clear, level) == (2, pytest.approx(0.04), pytest.approx(0.01 * 2**0.5))
    assert first_telling(better, clear) == (1, pytest.approx(0.02), pytest.approx(0.001 * 2**0.5))
    assert first_telling(clear, clear) == (0, 0.0, 0.0)
    assert shared_ranks(scores, parts=[clear, level, better, best]) == [4, 4, 2, 1]
    assert shared_ranks(scores, parts=[clear, clear, better, best]) == [3, 3, 2, 1]
    assert shared_ranks(scores) == [2, 2, 2, 1]


def test_few_seeds_widen_what_tells_clipped_scores_apart() -> None:
    """Of three seeds a side, alike in error, 4 degrees of freedom: 2.776 errors; of three and one 8, of none 1.96."""
    first, second = (((value, 0.01), (0.0, 0.1), (0.0, 0.1), (0.0, 0.1)) for value in (0.05, 0.05 + 0.0347))
    scores = [(0.0, 0.0)] * 2
    for seeds, quantile in ((1, 1), 1.960), ((3, 1), 2.306), ((3, 3), 2.776):
        tells = quantile * 0.01 * 2**0.5 < 0.0347
        assert first_telling(second, first, seeds)[0] == tells
        assert shared_ranks(scores, parts=[first, second], seeds=seeds) == [1 + tells, 1]
    assert [quantile * 0.01 * 2**0.5 < 0.0347 for quantile in (1.960, 2.306, 2.776)] == [True, True, False]
    assert first_telling(second, first, (2, 2))[0] == 0
