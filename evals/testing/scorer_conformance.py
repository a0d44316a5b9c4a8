"""What every scorer of multiple choice without likelihood must do, whatever it makes of the draws.

A scorer's test class inherits :class:`ScorerConformance` and names it as :data:`evals.scorers.SCORERS` knows it; pytest
then runs every test of it::

    from evals.testing.scorer_conformance import ScorerConformance


    class TestMyScorer(ScorerConformance):
        name = "my_scorer"

The draws are those of a language whose truth is known (:mod:`evals.testing.known_language`). Shape letters: Q chunks,
S draws, K tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch

from evals.scorers import SCORERS, Scorer
from evals.scorers.draws import Chunks, Draws
from evals.testing.known_language import CHUNK_SIZE, CHUNKS, HIDDEN, PROBABILITIES, VOCAB_SIZE, model

PARTS = ((0, CHUNK_SIZE), (0, 1), (1, CHUNK_SIZE))
"""From where to before where a chunk is scored: all of it, its beginning, and the rest after a token of the context."""
ROWS = [(chunk, begin, end) for chunk in CHUNKS for begin, end in PARTS]
S = 64
MANY = 512
"""Draws among which the rarest chunk is for sure."""


class ScorerConformance:
    """Inherit, set ``name``, and run: form, independence of rows, open ends, purity, errors, better for likelier."""

    name: ClassVar[str]
    """As :data:`evals.scorers.SCORERS` knows it."""
    error_factor: ClassVar[float] = 2.0
    """How far the standard error that is told may be from how much scores scatter over draws, either way."""

    @pytest.fixture
    def scorer(self) -> Scorer:
        return SCORERS.get(self.name)

    def test_scores_and_variances_are_finite_numbers_in_double_precision(self, scorer: Scorer) -> None:
        for found in scorer(_draws()):
            assert found.shape == (len(ROWS),)
            assert found.dtype == torch.float64
            assert found.isfinite().all()
        assert (scorer(_draws()).variances >= 0).all()

    def test_a_chunk_does_not_depend_on_those_beside_it(self, scorer: Scorer) -> None:
        chunks = _chunks()
        values, variances = scorer(Draws(model(), chunks, S))
        for row in range(len(ROWS)):
            alone = scorer(Draws(model(), _only(chunks, [row]), S))
            torch.testing.assert_close(alone.values, values[row : row + 1], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(alone.variances, variances[row : row + 1], rtol=1e-4, atol=1e-7)

    def test_what_stands_after_the_end_is_left_open(self, scorer: Scorer) -> None:
        chunks = _chunks()
        after = torch.arange(CHUNK_SIZE) >= chunks.ends[:, None]
        others = torch.where(after, (chunks.tokens + 1) % VOCAB_SIZE, chunks.tokens)
        changed = Chunks(chunks.hidden, others, chunks.begins, chunks.ends, chunks.seeds)
        torch.testing.assert_close(scorer(Draws(model(), changed, S)).values, scorer(_draws()).values)

    def test_the_order_of_the_draws_does_not_matter(self, scorer: Scorer) -> None:
        draws, turned = _draws(), _draws()
        turned.latents = turned.latents.flip(0)
        torch.testing.assert_close(scorer(turned).values, scorer(draws).values, rtol=1e-5, atol=1e-6)

    def test_it_draws_nothing_and_leaves_the_draws_alone(self, scorer: Scorer) -> None:
        draws = _draws()
        before = draws.latents.clone(), draws.log_probabilities.clone(), draws.tokens.clone()
        state = torch.random.get_rng_state()
        first = scorer(draws)
        assert torch.equal(torch.random.get_rng_state(), state)
        for kept, now in zip(before, (draws.latents, draws.log_probabilities, draws.tokens), strict=True):
            assert torch.equal(kept, now)
        torch.manual_seed(5)
        assert torch.equal(scorer(draws).values, first.values)

    def test_the_error_is_how_far_other_draws_move_the_score(self, scorer: Scorer) -> None:
        found = [scorer(_draws(MANY, seed)) for seed in range(40)]
        scatter = torch.stack([each.values for each in found]).std(dim=0)
        told = torch.stack([each.variances for each in found]).mean(dim=0).sqrt()
        assert (told <= self.error_factor * scatter).all(), f"told {told}, found {scatter}"
        assert (scatter <= self.error_factor * told).all(), f"told {told}, found {scatter}"

    @pytest.mark.parametrize(("begin", "end"), PARTS)
    def test_the_likeliest_of_all_choices_scores_higher_than_the_unlikeliest(
        self, scorer: Scorer, begin: int, end: int
    ) -> None:
        values = scorer(_draws(MANY)).values
        # Choices after one context: chunks that agree before ``begin``, told apart by their tokens before ``end``.
        scores: dict[tuple[int, ...], float] = {}
        truth: dict[tuple[int, ...], float] = {}
        for row, (chunk, *part) in enumerate(ROWS):
            if part == [begin, end] and chunk[:begin] == CHUNKS[0][:begin]:
                scores[chunk[:end]] = float(values[row])
                same = [float(p) for p, other in zip(PROBABILITIES, CHUNKS, strict=True) if other[:end] == chunk[:end]]
                truth[chunk[:end]] = sum(same)
        assert scores[max(truth, key=truth.__getitem__)] > scores[min(truth, key=truth.__getitem__)]


def _draws(num_samples: int = S, seed: int = 0) -> Draws:
    return Draws(model(), _chunks(seed), num_samples)


def _chunks(seed: int = 0) -> Chunks:
    """All chunks, and parts of them."""
    chunks, begins, ends = zip(*ROWS, strict=True)
    return Chunks(
        HIDDEN.expand(len(ROWS), -1),
        torch.tensor(chunks),
        torch.tensor(begins),
        torch.tensor(ends),
        range(seed * len(ROWS), (seed + 1) * len(ROWS)),
    )


def _only(chunks: Chunks, rows: Sequence[int]) -> Chunks:
    index = list(rows)
    seeds = [chunks.seeds[row] for row in index]
    return Chunks(chunks.hidden[index], chunks.tokens[index], chunks.begins[index], chunks.ends[index], seeds)
