"""The estimators against exhaustive expectation over all outcomes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evals.brier import brier_scores, brierlm, expected_brier

Rows = list[list[int]]


def random_distribution(rng: np.random.Generator, size: int, concentration: float = 0.7) -> np.ndarray:
    return rng.dirichlet(np.full(size, concentration))


@pytest.mark.parametrize("num_samples", [2, 3, 4])
def test_expectation_over_all_samples_is_the_brier_score(num_samples: int) -> None:
    """Two letters, two tokens: every possible set of samples and every target, weighted by its probability."""
    rng = np.random.default_rng(0)
    grams = np.array(list(itertools.product(range(2), repeat=2)))
    model, truth = random_distribution(rng, 4), random_distribution(rng, 4)
    choices = np.array(list(itertools.product(range(4), repeat=num_samples + 1)))
    weight = model[choices[:, :-1]].prod(axis=1) * truth[choices[:, -1]]
    scores = brier_scores(grams[choices[:, :-1]], grams[choices[:, -1]], (1, 2))
    found = (weight[:, None] * scores).sum(axis=0)
    first_of = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    exact = [expected_brier(first_of @ model, first_of @ truth), expected_brier(model, truth)]
    np.testing.assert_allclose(found, exact, rtol=1e-12)


def test_more_samples_estimate_the_same_with_less_variance() -> None:
    """The U-statistic is the average over all pairs of the two-sample estimate."""
    rng = np.random.default_rng(1)
    samples, targets = rng.integers(0, 3, (50, 6, 4)), rng.integers(0, 3, (50, 4))
    pairs = [brier_scores(samples[:, list(pair)], targets) for pair in itertools.combinations(range(6), 2)]
    np.testing.assert_allclose(brier_scores(samples, targets), np.mean(pairs, axis=0), atol=1e-12)


def test_order_of_samples_and_names_of_tokens_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    samples, targets = rng.integers(0, 4, (2, 5, 7, 4)), rng.integers(0, 4, (2, 5, 4))
    scores = brier_scores(samples, targets)
    assert scores.shape == (2, 5, 4)
    np.testing.assert_allclose(brier_scores(samples[:, :, rng.permutation(7)], targets), scores, atol=1e-12)
    renamed = rng.permutation(4)
    np.testing.assert_array_equal(brier_scores(renamed[samples], renamed[targets]), scores)


def test_known_values() -> None:
    same = [[1, 2, 3, 4], [1, 2, 3, 4]]
    np.testing.assert_array_equal(brier_scores(np.array(same), np.array([1, 2, 3, 4])), [1, 1, 1, 1])
    np.testing.assert_array_equal(brier_scores(np.array(same), np.array([9, 2, 3, 4])), [-1, -1, -1, -1])
    half = [[1, 2, 3, 4], [1, 9, 3, 4]]
    # Both begin alike, then part: what comes after a difference no longer counts, equal or not.
    np.testing.assert_array_equal(brier_scores(np.array(half), np.array([1, 2, 3, 4])), [1, 1, 1, 1])
    np.testing.assert_array_equal(brier_scores(np.array(half), np.array([1, 7, 3, 4])), [1, 0, 0, 0])
    np.testing.assert_array_equal(brier_scores(np.array(half), np.array([1, 9, 3, 5]), (2, 4)), [1, 0])


@pytest.mark.parametrize("size", [2, 5, 30])
def test_the_truth_scores_highest(size: int) -> None:
    rng = np.random.default_rng(size)
    truth = random_distribution(rng, size)
    best = expected_brier(truth, truth)
    assert best == pytest.approx((truth**2).sum())
    for _ in range(200):
        other = random_distribution(rng, size, concentration=rng.uniform(0.1, 5))
        # The distance to the best is the squared Euclidean distance: zero only for the truth itself.
        assert best - expected_brier(other, truth) == pytest.approx(((truth - other) ** 2).sum())


def test_brierlm_is_a_geometric_mean_and_zero_with_any_component_not_positive() -> None:
    assert brierlm(np.array([0.4, 0.2, 0.1, 0.05])) == pytest.approx(100 * (0.4 * 0.2 * 0.1 * 0.05) ** 0.25)
    rows = np.array([[0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.0], [0.1, 0.1, -0.1, -0.1], [-1, -1, -1, -1]])
    np.testing.assert_allclose(brierlm(rows), [10, 0, 0, 0])


@pytest.mark.parametrize(
    ("samples", "targets", "lengths", "message"),
    [
        ((5, 1, 4), (5, 4), (1,), "at least two samples"),
        ((5, 3, 4), (4, 4), (1,), "do not belong together"),
        ((5, 3, 2), (5, 2), (1, 3), "do not fit continuations of 2 tokens"),
        ((5, 3, 2), (5, 2), (0, 1), "do not fit"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    samples: tuple[int, ...], targets: tuple[int, ...], lengths: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        brier_scores(np.zeros(samples, dtype=np.int64), np.zeros(targets, dtype=np.int64), lengths)
