"""Standard errors over clusters: closed forms, bootstrap against delta method, coverage, and the edge at zero."""

from __future__ import annotations

import numpy as np
import pytest

from evals.brier import brierlm
from evals.stats import (
    ClusterSums,
    cluster_sums,
    delta_standard_errors,
    freedom,
    paired_difference,
    pooled_difference,
    random_weights,
    summarise,
)


def draw_sums(rng: np.random.Generator, num_clusters: int, means: np.ndarray, spread: float = 0.3) -> ClusterSums:
    """Clusters of unequal size whose own level varies: positions of a cluster are dependent."""
    counts = rng.integers(1, 20, num_clusters)
    clusters = np.repeat(np.arange(num_clusters), counts)
    level = rng.gamma(1 / spread**2, spread**2, num_clusters)
    scores = (rng.random((len(clusters), 1)) < np.clip(level[clusters, None] * means, 0, 1)).astype(np.float64)
    return cluster_sums(scores, clusters)


def test_sums_within_clusters() -> None:
    scores = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    sums = cluster_sums(scores, np.array([7, 2, 7]))
    assert sums.clusters.tolist() == [2, 7]
    assert sums.totals.tolist() == [[3, 4], [6, 8]]
    assert sums.counts.tolist() == [1, 2]
    np.testing.assert_allclose(sums.means, scores.mean(axis=0))


def test_closed_form_is_the_textbook_standard_error_for_equal_clusters() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, (40, 4))
    errors, _ = delta_standard_errors(cluster_sums(values, np.arange(40)))
    np.testing.assert_allclose(errors, values.std(axis=0, ddof=1) / np.sqrt(40))


def test_the_gradient_of_the_geometric_mean() -> None:
    """BrierLM's closed-form error equals that of its numerically linearised value."""
    rng = np.random.default_rng(1)
    sums = draw_sums(rng, 60, np.array([0.6, 0.4, 0.3, 0.2]))
    means, step = sums.means, 1e-6
    gradient = np.array(
        [(brierlm(means + step * unit) - brierlm(means - step * unit)) / (2 * step) for unit in np.eye(4)]
    )
    residuals = (sums.totals - sums.counts[:, None] * means) @ gradient
    expected = np.sqrt(60 / 59 * (residuals**2).sum()) / sums.counts.sum()
    assert delta_standard_errors(sums)[1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_clusters", [30, 400])
def test_bootstrap_and_closed_form_agree(num_clusters: int) -> None:
    rng = np.random.default_rng(num_clusters)
    summary = summarise(draw_sums(rng, num_clusters, np.array([0.6, 0.5, 0.4, 0.3])), match_value=0.25, seed=0)
    np.testing.assert_allclose(summary.component_errors, summary.delta_errors, rtol=0.08)
    assert summary.brierlm_delta_error == pytest.approx(summary.brierlm.standard_error, rel=0.08)


def test_standard_error_is_unbiased_with_few_clusters() -> None:
    """Five clusters: weights of the plain Bayesian bootstrap would understate the variance by a third."""
    rng = np.random.default_rng(3)
    values = rng.normal(1.0, 0.2, (300, 5))
    ratios = []
    for seed, row in enumerate(values):
        weights, _ = next(random_weights(5, seed, 500))
        means = weights @ row / weights.sum(axis=1)
        ratios.append(means.var(ddof=1) / (row.var(ddof=1) / 5))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("num_events", "low", "high"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (3, 0.619, 8.767)])
def test_rare_events_have_the_exact_poisson_limits(num_events: int, low: float, high: float) -> None:
    """One component, so BrierLM is 100 times a mean count; the limits are those of a Poisson mean (Garwood)."""
    scores = np.zeros((1000, 1))
    scores[:num_events] = 0.25
    summary = summarise(cluster_sums(scores, np.arange(1000)), match_value=0.25, seed=0, num_resamples=20_000)
    found = np.array(summary.brierlm.interval) / 100 * 1000 / 0.25
    np.testing.assert_allclose(found, [low, high], rtol=0.03, atol=0.01)


@pytest.mark.slow
def test_intervals_cover_with_dependent_positions_of_unequal_clusters() -> None:
    """Positions taken for independent would understate the error here by more than half."""
    means = np.array([0.5, 0.4, 0.3, 0.2])
    rng = np.random.default_rng(4)
    # The same drawing, far more of it, stands for the truth.
    truth = float(brierlm(draw_sums(rng, 400_000, means, spread=1.0).means))
    covered, replications = 0, 400
    for seed in range(replications):
        low, high = summarise(draw_sums(rng, 120, means, spread=1.0), 0.25, seed, num_resamples=600).brierlm.interval
        covered += low <= truth <= high
    assert 0.92 <= covered / replications <= 0.98


def test_same_seed_same_numbers() -> None:
    sums = draw_sums(np.random.default_rng(5), 50, np.array([0.5, 0.4, 0.3, 0.2]))
    assert summarise(sums, 0.25, seed=1).brierlm == summarise(sums, 0.25, seed=1).brierlm
    assert summarise(sums, 0.25, seed=1).brierlm != summarise(sums, 0.25, seed=2).brierlm


def test_no_match_at_all_is_not_certainty() -> None:
    scores = np.full((100, 4), 0.2)
    scores[:, 3] = 0.0
    summary = summarise(cluster_sums(scores, np.arange(100)), match_value=0.25, seed=0)
    assert summary.brierlm.value == 0.0
    assert summary.brierlm_delta_error is None
    low, high = summary.brierlm.interval
    assert low == 0.0
    assert high == pytest.approx(100 * (0.2**3 * 3.689 * 0.25 / 100) ** 0.25, rel=0.05)
    assert summary.brierlm.standard_error >= high / 3.93
    assert summary.component_errors[3] == pytest.approx(0.25 / 100)


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2])
def test_intervals_cover_when_matches_are_few(rate: float) -> None:
    """4-gram matches from none at all to a handful: the interval errs on the wide side, never on the narrow one."""
    rng = np.random.default_rng(7)
    truth = 100 * (0.4 * 0.3 * 0.2 * 0.25 * rate) ** 0.25
    covered, replications = 0, 300
    for seed in range(replications):
        scores = rng.normal([0.4, 0.3, 0.2, 0.0], [0.1, 0.1, 0.1, 0.0], (100, 4))
        scores[:, 3] = 0.25 * (rng.random(100) < rate)
        low, high = summarise(cluster_sums(scores, np.arange(100)), 0.25, seed, num_resamples=500).brierlm.interval
        covered += low <= truth <= high
    assert covered / replications >= 0.93


def test_a_clearly_negative_component_makes_the_score_zero() -> None:
    scores = np.random.default_rng(0).normal([0.2, 0.2, -0.2, -0.2], 0.01, (100, 4))
    estimate = summarise(cluster_sums(scores, np.arange(100)), match_value=0.25, seed=0).brierlm
    assert estimate.value == 0.0
    assert estimate.interval == (0.0, 0.0)
    assert estimate.standard_error == 0.0


def test_paired_difference_is_sharper_than_two_separate_errors() -> None:
    rng = np.random.default_rng(6)
    difficulty = rng.uniform(0.1, 0.9, (200, 1))
    first = cluster_sums(difficulty + rng.normal(0.02, 0.02, (200, 4)), np.arange(200))
    second = cluster_sums(difficulty + rng.normal(0.0, 0.02, (200, 4)), np.arange(200))
    difference = paired_difference(first, second, seed=0)
    assert difference.value == pytest.approx(float(brierlm(first.means) - brierlm(second.means)))
    assert difference.interval[0] < difference.value < difference.interval[1]
    assert difference.value > 5 * difference.standard_error
    assert difference.standard_error < 0.2 * summarise(first, 0.25, seed=0).brierlm.standard_error
    same = paired_difference(first, first, seed=0)
    assert (same.value, same.standard_error, same.interval) == (0.0, 0.0, (0.0, 0.0))


def test_what_has_no_error_is_refused() -> None:
    one = cluster_sums(np.ones((5, 4)), np.zeros(5, dtype=np.int64))
    with pytest.raises(ValueError, match="at least three clusters"):
        summarise(one, 0.25, seed=0)
    with pytest.raises(ValueError, match="at least two clusters"):
        delta_standard_errors(one)
    two = cluster_sums(np.ones((5, 4)), np.array([0, 0, 0, 1, 1]))
    other = cluster_sums(np.ones((5, 4)), np.array([0, 0, 1, 1, 1]))
    with pytest.raises(ValueError, match="same documents and positions"):
        paired_difference(two, other, seed=0)


@pytest.mark.parametrize(("spread_of_seeds", "spread_of_documents"), [(1.0, 0.3), (1.0, 3.0)])
def test_intervals_over_three_seeds_cover_whatever_most_of_the_error_is_due_to(
    spread_of_seeds: float, spread_of_documents: float
) -> None:
    """Normal intervals hold the true difference, 0, in 87 of 100 cases where seeds are all of the error."""
    rng = np.random.default_rng(7)
    clusters, held, tries = np.arange(40), 0, 250
    for seed in range(tries):
        # What is hard in a document is so for one of the two models alone: pairing takes nothing away.
        hard = spread_of_documents / np.sqrt(2) * rng.normal(size=(2, 40))
        sides = [
            [
                cluster_sums(np.full((40, 4), 50.0) + spread_of_seeds * rng.normal() + side[:, None], clusters)
                for _ in range(3)
            ]
            for side in hard
        ]
        low, high = pooled_difference(*sides, seed=seed, num_resamples=200).interval
        held += low <= 0 <= high
    assert 0.92 <= held / tries <= 0.98


def test_freedom_is_that_of_seeds_alone_or_of_none() -> None:
    assert freedom(np.sqrt(2.0), [(1.0, 3), (1.0, 3)]) == pytest.approx(4.0)
    assert freedom(1.0, [(1.0, 3), (0.0, 1)]) == pytest.approx(2.0)
    assert freedom(10.0, [(1.0, 3), (1.0, 3)]) == pytest.approx(1e4)
    assert freedom(1.0, [(0.0, 1), (0.0, 3)]) == np.inf
