"""One set of targets, contexts of several lengths."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from calm_bench.config import LanguageModel
from calm_bench.lm import TokenModel
from evals.brier import brierlm
from evals.context_sweep import sweep_context
from evals.evaluate import EvaluationError, MarkovSampler, ModelSampler, Scoring, evaluate_brierlm
from evals.stats import paired_difference
from tests.evals.markov_texts import Documents, OnlySamples, language, protocol, text_of

KINDS = pytest.mark.parametrize("kind", [MarkovSampler, OnlySamples])


def long_text(order: int, num_documents: int = 20, letters: int = 419) -> Documents:
    truth = language(order=order)
    return Documents(np.stack([truth.sample_codes(document, letters) for document in range(num_documents)]) + ord("a"))


@KINDS
def test_a_language_needs_as_much_context_as_its_order(kind: type[MarkovSampler]) -> None:
    truth = language(order=3)
    sweep = sweep_context(kind(truth), long_text(3), protocol(num_samples=8), [1, 2, 3, 8])
    assert [point.context_length for point in sweep.points] == [1, 2, 3, 8]
    assert (sweep.num_documents, sweep.error_unit) == (20, "document")
    assert sweep.estimator == ("exact" if kind is MarkovSampler else "all-pairs")
    one, two, three, eight = sweep.points
    # Differences beyond doubt while the language is not fully seen, and none beyond.
    assert one.difference_interval[1] < two.difference_interval[1] < 0
    assert one.difference < two.difference < -3 * two.difference_se
    exact = np.array([truth.exact_brier(n) for n in (1, 2, 3, 4)])
    assert abs(eight.brierlm - brierlm(exact)) < 3.5 * eight.brierlm_se
    assert (eight.difference, eight.difference_se, eight.difference_interval) == (0.0, 0.0, (0.0, 0.0))
    assert three.difference == 0.0
    paired = paired_difference(one.sums, eight.sums, seed=0)
    assert one.difference == pytest.approx(paired.value)
    assert one.difference_se == pytest.approx(paired.standard_error, rel=0.1)
    assert two.difference_se < 0.8 * np.hypot(two.brierlm_se, eight.brierlm_se)


def test_targets_are_the_protocols_that_have_the_longest_context() -> None:
    text, rules = long_text(1), protocol(max_windows=50)
    calls: list[tuple[int, int]] = []
    sweep = sweep_context(
        MarkovSampler(language()), text, rules, [30, 4, 4], progress=lambda done, total: calls.append((done, total))
    )
    assert [point.context_length for point in sweep.points] == [4, 30]
    # Positions 4, 12, ..., 36 of 50 windows; in the first of them those below 30 have too little before them.
    assert sweep.num_positions == 50 * 5 - 4
    assert all(point.sums.counts.sum() == sweep.num_positions for point in sweep.points)
    assert calls[-1] == (2 * sweep.num_positions, 2 * sweep.num_positions)
    assert calls == sorted(calls)


def test_agrees_with_the_windows_of_a_protocol() -> None:
    """A model whose every target has the same context under the protocol scores the same in a sweep."""
    torch.manual_seed(0)
    config = LanguageModel(
        kind="token", chunk_size=1, hidden_size=16, intermediate_size=24, num_layers=1, num_attention_heads=2
    )
    model = TokenModel(config, 257)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    sampler, text = ModelSampler(model), text_of(language(), 12)
    rules = protocol(context_length=14, first_position=10, position_stride=8, num_samples=2)
    assert rules.positions == (10,)
    sweep = sweep_context(sampler, text, rules, [5, 10])
    scoring = Scoring(sampler, text, rules, "exact")
    starts = np.arange(0, len(text), 14)
    expected, _ = scoring.score(starts, 14, [10], starts + 10, at_once=7)
    np.testing.assert_allclose(sweep.points[1].brier, expected.mean(axis=0), rtol=1e-5)
    assert abs(sweep.points[0].brier[0] - sweep.points[1].brier[0]) > 1e-3
    matched = evaluate_brierlm(sampler, text, rules)
    assert matched.brier[0] == pytest.approx(sweep.points[1].brier[0], rel=1e-5)


def test_dict_is_json() -> None:
    sweep = sweep_context(MarkovSampler(language()), text_of(language(), 40), protocol(), [2, 4])
    plain = json.loads(json.dumps(sweep.to_dict(), allow_nan=False))
    assert [point["context_length"] for point in plain["points"]] == [2, 4]
    assert set(plain["points"][0]) >= {"brierlm", "brierlm_se", "brier", "brier_se", "difference", "difference_se"}
    assert "sums" not in plain["points"][0]
    assert plain["protocol"]["name"] == "matched"
    assert plain["protocol_hash"] == protocol().hash


class FourAtATime(OnlySamples):
    chunk_size = 4


@pytest.mark.parametrize(
    ("kind", "lengths", "message"),
    [
        (MarkovSampler, [], "must be positive"),
        (MarkovSampler, [0, 4], "must be positive"),
        (FourAtATime, [4, 6], "6 tokens is not a multiple of the model's chunk size 4"),
        (MarkovSampler, [4, 800], "have 800 tokens before their targets: take shorter contexts"),
    ],
)
def test_lengths_that_cannot_be_scored(kind: type[MarkovSampler], lengths: list[int], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        sweep_context(kind(language()), text_of(language(), 20), protocol(), lengths)
