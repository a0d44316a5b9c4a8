"""What a pilot foretells about other sizes, against replications of these sizes."""

from __future__ import annotations

import numpy as np
import pytest

from evals.brier import brierlm
from evals.estimators import estimator_for, samples_used
from evals.evaluate import BrierResult, EvaluationError, MarkovSampler, Scoring, evaluate_brierlm
from evals.sample_size import FEWEST_DOCUMENTS, sample_sizes, variance_parts
from tests.evals.markov_texts import OnlySamples, fresh_text, language, protocol


def score(kind: type[MarkovSampler], num_documents: int, num_samples: int, seed: int) -> BrierResult:
    truth = language(alphabet_size=4, concentration=0.5)
    rules = protocol(num_samples=num_samples, seed=seed)
    return evaluate_brierlm(kind(truth), fresh_text(truth, num_documents, seed), rules, windows_at_once=num_documents)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [OnlySamples, MarkovSampler])
def test_predicted_errors_are_those_of_replications(kind: type[MarkovSampler]) -> None:
    """From 1000 documents with 4 samples each to 120 with 2 and with 8."""
    parts = variance_parts(score(kind, 1000, 4, seed=1).scored)
    truth = language(alphabet_size=4, concentration=0.5)
    for num_samples in (2, 8):
        text, rules = fresh_text(truth, 120 * 150, seed=2), protocol(num_samples=num_samples, seed=2)
        scoring = Scoring(kind(truth), text, rules, estimator_for(kind(truth), rules))
        starts = np.arange(0, len(text), rules.context_length)
        scores, _ = scoring.score(starts, rules.context_length, rules.positions, starts, at_once=2000)
        # Documents are independent, so every 120 of one long text are a replication.
        replications = brierlm(scores.reshape(150, -1, 4).mean(axis=1))
        used = samples_used(estimator_for(kind(truth), rules), num_samples)
        assert parts.standard_error(120, used) == pytest.approx(replications.std(ddof=1), rel=0.15)


def test_the_pilots_own_error_is_among_the_predictions() -> None:
    for kind in (OnlySamples, MarkovSampler):
        pilot = score(kind, 300, 6, seed=0)
        predicted = variance_parts(pilot.scored).standard_error(300, pilot.num_samples)
        assert predicted == pytest.approx(pilot.brierlm_se_delta)


def test_samples_help_where_sampling_makes_the_error() -> None:
    """Exact probabilities leave little to sampling; pairs of a few samples leave much."""
    samples, exact = (variance_parts(score(kind, 300, 8, seed=2).scored) for kind in (OnlySamples, MarkovSampler))
    assert samples.standard_error(1, 32) < 0.8 * samples.standard_error(1, 2)
    assert exact.standard_error(1, 32) > 0.9 * exact.standard_error(1, 2)
    assert exact.per_pair == 0
    assert samples.between == pytest.approx(exact.between, rel=0.3)


def test_sizes_reach_the_wanted_error() -> None:
    pilot = score(OnlySamples, 200, 8, seed=3)
    wanted = pilot.brierlm_se / 3
    sizes = sample_sizes(pilot.scored, wanted, (2, 8, 32))
    assert [size.num_samples for size in sizes] == [2, 8, 32]
    assert sizes[0].num_documents > sizes[1].num_documents > sizes[2].num_documents
    assert sizes[1].num_documents == pytest.approx(9 * 200, rel=0.15)
    for size in sizes:
        assert 0.97 * wanted < size.standard_error <= wanted
        assert size.num_positions == 5 * size.num_documents
        assert size.num_continuations == size.num_positions * size.num_samples
    assert sizes[0].to_dict()["num_documents"] == sizes[0].num_documents
    (modest,) = sample_sizes(pilot.scored, 100 * pilot.brierlm_se, (4,))
    assert modest.num_documents == FEWEST_DOCUMENTS
    assert modest.standard_error < 100 * pilot.brierlm_se


def test_exact_probabilities_leave_no_choice_of_samples() -> None:
    pilot = score(MarkovSampler, 100, 8, seed=0)
    (size,) = sample_sizes(pilot.scored, pilot.brierlm_se / 2, (4, 8))
    assert size.num_samples == pilot.num_samples == 2
    assert size.num_documents == pytest.approx(400, rel=0.15)


def test_pilots_that_say_nothing_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"2 samples per position \(all-pairs\) cannot tell"):
        variance_parts(score(OnlySamples, 50, 2, seed=0).scored)
    truth = language()
    hopeless = evaluate_brierlm(OnlySamples(language(seed=9, concentration=0.01)), fresh_text(truth, 20, 0), protocol())
    assert hopeless.brierlm == 0.0
    with pytest.raises(EvaluationError, match="the pilot's BrierLM is 0"):
        variance_parts(hopeless.scored)


@pytest.mark.parametrize(
    ("wanted", "counts", "message"),
    [
        (0.0, (2,), "must be positive"),
        (float("nan"), (2,), "must be positive"),
        (1.0, (1, 2), "at least two"),
        (1.0, (), "at least two"),
    ],
)
def test_impossible_wishes_are_refused(wanted: float, counts: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_sizes(score(MarkovSampler, 50, 4, seed=0).scored, wanted, counts)
