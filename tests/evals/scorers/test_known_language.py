"""Scorers on a chunk model whose truth is known: its head draws one of nine latents, each the latent of one chunk."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evals.scorers import SCORERS
from evals.scorers.estimate import log_mean_ratio
from evals.testing.known_language import CHUNK_SIZE, CHUNKS, PROBABILITIES, SHARPNESS, VOCAB_SIZE, draws_of


def truth(chunk: tuple[int, ...], begin: int, end: int, sharpness: float) -> float:
    """log P(tokens from begin to end | tokens before), through the decoder's softmax, by enumeration."""
    right = math.exp(sharpness) / (math.exp(sharpness) + VOCAB_SIZE - 1)
    wrong = (1 - right) / (VOCAB_SIZE - 1)

    def probability(length: int) -> float:
        return sum(
            float(own) * math.prod(right if a == b else wrong for a, b in zip(other[:length], chunk, strict=False))
            for own, other in zip(PROBABILITIES, CHUNKS, strict=True)
        )

    return math.log(probability(end) / probability(begin))


PARTS = [(0, 2), (1, 2), (0, 1)]


@pytest.mark.parametrize(("begin", "end"), PARTS)
@pytest.mark.parametrize(("scorer", "sharpness"), [("decoder", 1.5), ("decoder", SHARPNESS), ("latent_density", 12.0)])
def test_likelihood_scorers_converge_to_the_truth(scorer: str, sharpness: float, begin: int, end: int) -> None:
    """Whole chunks, chunks with a given prefix, and continuations that end inside a chunk."""
    estimate = SCORERS.get(scorer)(draws_of(CHUNKS, begin, end, 20_000, sharpness=sharpness))
    exact = torch.tensor([truth(chunk, begin, end, sharpness) for chunk in CHUNKS], dtype=torch.float64)
    errors = estimate.variances.sqrt()
    assert float(errors.max()) < 0.1
    assert ((estimate.values - exact).abs() <= 4 * errors + 1e-3).all()


@pytest.mark.parametrize(("begin", "end"), PARTS)
def test_prefix_matches_are_conditional_frequencies(begin: int, end: int) -> None:
    estimate = SCORERS.get("prefix_match")(draws_of(CHUNKS, begin, end, 20_000))
    exact = torch.tensor([truth(chunk, begin, end, 30.0) for chunk in CHUNKS], dtype=torch.float64)
    assert ((estimate.values - exact).abs() <= 4 * estimate.variances.sqrt() + 2e-3).all()


@pytest.mark.parametrize("begin", [0, 1])
def test_energy_is_the_expected_distance_given_the_prefix(begin: int) -> None:
    estimate = SCORERS.get("latent_energy")(draws_of(CHUNKS, begin, CHUNK_SIZE, 20_000))
    for chunk, value, variance in zip(CHUNKS, estimate.values, estimate.variances, strict=True):
        given = [(p, c) for p, c in zip(PROBABILITIES.tolist(), CHUNKS, strict=True) if c[:begin] == chunk[:begin]]
        total = sum(p for p, _ in given)
        distance = sum(p * math.sqrt(2 * sum(a != b for a, b in zip(c, chunk, strict=True))) for p, c in given) / total
        assert abs(float(value) + distance) <= 4 * float(variance) ** 0.5 + 1e-3


def test_energy_of_an_open_end_asks_for_the_known_tokens_only() -> None:
    """Draws that begin with the known token are at distance 0, whatever follows it; the others differ in one token."""
    estimate = SCORERS.get("latent_energy")(draws_of(CHUNKS, 0, 1, 20_000))
    for chunk, value, variance in zip(CHUNKS, estimate.values, estimate.variances, strict=True):
        share = sum(p for p, c in zip(PROBABILITIES.tolist(), CHUNKS, strict=True) if c[0] == chunk[0])
        assert abs(float(value) + (1 - share) * math.sqrt(2)) <= 4 * float(variance) ** 0.5 + 1e-6


def test_second_terms_of_the_energies() -> None:
    own = draws_of(CHUNKS, 0, CHUNK_SIZE, 2000)
    spread = sum(
        float(p) * float(q) * math.sqrt(2 * sum(a != b for a, b in zip(c, d, strict=True)))
        for p, c in zip(PROBABILITIES, CHUNKS, strict=True)
        for q, d in zip(PROBABILITIES, CHUNKS, strict=True)
    )
    plain, score = SCORERS.get("latent_energy")(own), SCORERS.get("energy_score")(own)
    relative = SCORERS.get("relative_energy")(own)
    np.testing.assert_allclose(score.values - plain.values, spread / 2, atol=0.02)
    np.testing.assert_allclose(relative.values, -(-plain.values / spread).log(), atol=0.03)


@pytest.mark.parametrize("scorer", SCORERS.names())
def test_scores_rank_as_the_truth(scorer: str) -> None:
    """Among chunks of which no two are near each other, the likelier one wins."""
    chosen = [(0, 0), (1, 1), (2, 2)]  # 0.25, 0.2 and 0.03
    values = SCORERS.get(scorer)(draws_of(chosen, 0, CHUNK_SIZE, 1500)).values
    if scorer in ("energy_score", "relative_energy"):
        # Their second terms come from draws of their own here; with equal seeds they are equal.
        values = torch.cat([SCORERS.get(scorer)(draws_of([chunk], 0, CHUNK_SIZE, 1500)).values for chunk in chosen])
    assert values.argmin() == 2
    assert scorer not in ("decoder", "latent_density", "prefix_match") or values.argmax() == 0


@pytest.mark.parametrize("scorer", SCORERS.names())
@pytest.mark.parametrize(("begin", "end"), PARTS)
def test_monte_carlo_errors_are_those_seen(scorer: str, begin: int, end: int) -> None:
    """Over many sets of draws, the spread of the values is the error that each set tells."""
    repeats = 400
    estimate = SCORERS.get(scorer)(draws_of([(0, 0)] * repeats, begin, end, 150, sharpness=3.0))
    seen = float(estimate.values.std())
    told = float(estimate.variances.mean()) ** 0.5
    assert told > 0
    assert 0.85 < seen / told < 1.18


def test_jensen_the_bound_rises_to_the_likelihood() -> None:
    exact = truth((0, 0), 0, 2, 3.0)
    means = []
    for num_samples in (2, 8, 128):
        values = SCORERS.get("decoder")(draws_of([(0, 0)] * 2000, 0, 2, num_samples, sharpness=3.0)).values
        means.append(float(values.mean()))
        assert means[-1] < exact + 4 * float(values.std()) / 2000**0.5
    assert means[0] < means[1] < means[2]
    assert abs(means[2] - exact) < 0.03


def test_ratio_of_means_needs_no_representable_terms() -> None:
    tiny = torch.tensor([[-5000.0], [-5001.0]])
    value, variance = log_mean_ratio(tiny, tiny - 3)
    assert abs(float(value) - 3) < 1e-9
    assert float(variance) < 1e-9
