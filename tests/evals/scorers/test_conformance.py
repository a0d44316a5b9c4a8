"""The scorers that ship pass the suite for scorers, and the suite finds what a scorer must not do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from evals.scorers import SCORERS, Draws, Estimate
from evals.scorers.decoder import decoder
from evals.testing.known_language import CHUNK_SIZE
from evals.testing.scorer_conformance import ScorerConformance


class TestDecoder(ScorerConformance):
    name = "decoder"


class TestEnergyScore(ScorerConformance):
    name = "energy_score"


class TestLatentDensity(ScorerConformance):
    name = "latent_density"


class TestLatentEnergy(ScorerConformance):
    name = "latent_energy"


class TestPrefixMatch(ScorerConformance):
    name = "prefix_match"


class TestRelativeEnergy(ScorerConformance):
    name = "relative_energy"


def test_every_scorer_that_ships_is_tested() -> None:
    tested = {each.name for each in ScorerConformance.__subclasses__() if hasattr(each, "name")}
    assert set(SCORERS.built_in) == tested


def single_precision(draws: Draws) -> Estimate:
    return Estimate(decoder(draws).values.float(), decoder(draws).variances)


def by_the_batch(draws: Draws) -> Estimate:
    values, variances = decoder(draws)
    return Estimate(values - values.mean(), variances)


def closed_end(draws: Draws) -> Estimate:
    values, variances = decoder(draws)
    return Estimate(values + draws.chunks.tokens[:, -1], variances)


def first_draws(draws: Draws) -> Estimate:
    return Estimate(decoder(draws).values + draws.latents[0, :, 0], decoder(draws).variances)


def noisy(draws: Draws) -> Estimate:
    values, variances = decoder(draws)
    return Estimate(values + torch.rand(len(values)), variances)


def in_place(draws: Draws) -> Estimate:
    found = decoder(draws)
    draws.latents.mul_(2)
    return found


def too_sure(draws: Draws) -> Estimate:
    return Estimate(decoder(draws).values, decoder(draws).variances / draws.num_samples)


def too_unsure(draws: Draws) -> Estimate:
    return Estimate(decoder(draws).values, decoder(draws).variances * draws.num_samples)


def upside_down(draws: Draws) -> Estimate:
    return Estimate(-decoder(draws).values, decoder(draws).variances)


@pytest.mark.parametrize(
    ("scorer", "test"),
    [
        (single_precision, "test_scores_and_variances_are_finite_numbers_in_double_precision"),
        (by_the_batch, "test_a_chunk_does_not_depend_on_those_beside_it"),
        (closed_end, "test_what_stands_after_the_end_is_left_open"),
        (first_draws, "test_the_order_of_the_draws_does_not_matter"),
        (noisy, "test_it_draws_nothing_and_leaves_the_draws_alone"),
        (in_place, "test_it_draws_nothing_and_leaves_the_draws_alone"),
        (too_sure, "test_the_error_is_how_far_other_draws_move_the_score"),
        (too_unsure, "test_the_error_is_how_far_other_draws_move_the_score"),
    ],
)
def test_a_fault_is_found(scorer: Callable[[Draws], Estimate], test: str) -> None:
    getattr(FaultFinder(), test)(decoder)
    with pytest.raises(AssertionError):
        getattr(FaultFinder(), test)(scorer)


def test_a_score_that_falls_is_found() -> None:
    with pytest.raises(AssertionError):
        FaultFinder().test_the_likeliest_of_all_choices_scores_higher_than_the_unlikeliest(upside_down, 0, CHUNK_SIZE)


class FaultFinder(ScorerConformance):
    """The suite, called by name."""

    __test__ = False
