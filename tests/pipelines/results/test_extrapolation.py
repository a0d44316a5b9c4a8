"""Predictions beyond the measured budgets: found where they are, bounded where they are not, and tested."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.results.entry import Entry
from pipelines.results.extrapolation import back_test, meeting_of
from pipelines.results.families import families_of
from pipelines.results.headline import headline
from pipelines.results.law import fit
from pipelines.results.noise import noise_of

Make = Callable[..., Entry]
BUDGETS = (0.5e12, 1e12, 2e12, 4e12, 8e12)


def rows(make: Make, kind: str, law: Callable[[float], float], error: float = 0.02, noise: float = 0.0) -> list[Entry]:
    chance = np.random.default_rng(len(kind))
    calm = kind != "token"
    return [
        make(
            kind="calm" if calm else "token",
            chunk_size=4 if calm else 1,
            head="energy" if calm else None,
            label=f"{kind}, {budget:.1e}",
            trial=number + 10 * calm,
            brierlm=law(budget) + noise * float(chance.normal()),
            brierlm_se=error,
            training_flops=budget,
            total_training_flops=budget,
            model_identity=f"{kind}{budget}",
        )
        for number, budget in enumerate(BUDGETS)
    ]


def token(compute: float) -> float:
    return float(10 + 1.0 * np.log(compute / 1e12))


def steeper(compute: float) -> float:
    """Meets the token model at e^4 times 1e12, which is 5.46e13: 6.8 times the largest budget."""
    return float(6 + 2.0 * np.log(compute / 1e12))


def test_lines_that_meet_beyond_the_points_are_said_to_with_an_interval_that_holds_the_place(make_entry: Make) -> None:
    found = headline(rows(make_entry, "token", token) + rows(make_entry, "K=4", steeper))
    (sentence,) = [one for one in found.sentences if one.startswith("Extrapolated")]
    assert "would meet the token model at" in sentence
    families = families_of(rows(make_entry, "token", token) + rows(make_entry, "K=4", steeper), ())
    noise = noise_of(families, 500)
    laws = [
        fit(np.array(BUDGETS), noise.scores[one.key], noise.covariances[one.key], noise.prior_means) for one in families
    ]
    meeting = meeting_of(families[1], families[0], noise, (laws[1], laws[0]))
    assert meeting is not None
    assert meeting.compute == pytest.approx(1e12 * np.exp(4), rel=0.15)
    assert meeting.low is not None
    assert meeting.low < 1e12 * np.exp(4)
    assert meeting.high is None or meeting.high > 1e12 * np.exp(4)
    assert meeting.share > 0.9
    assert meeting_of(families[0], families[1], noise, (laws[0], laws[1])) is None, "it is above already"


def test_parallel_lines_do_not_meet_and_few_budgets_say_nothing(make_entry: Make) -> None:
    below = rows(make_entry, "K=4", lambda compute: token(compute) - 5)
    found = headline(rows(make_entry, "token", token) + below)
    assert any("does not meet that of the token model within 1000 times" in one for one in found.sentences)
    few = headline(rows(make_entry, "token", token)[:2] + below[:2])
    assert not any(one.startswith("Extrapolated") for one in few.sentences)


def test_intervals_of_predictions_hold_about_as_often_as_they_say(make_entry: Make) -> None:
    """Twenty studies of two families, whose scores scatter by their errors around laws that the fit knows."""
    held = predictions = 0
    for number in range(20):
        chance = np.random.default_rng(number)

        def law(compute: float, chance: np.random.Generator = chance) -> float:
            return token(compute) + 0.2 * float(chance.normal())

        entries = rows(make_entry, "token", law, 0.2) + rows(make_entry, "K=4", lambda c: law(c) - 3, 0.2)
        found = back_test(families := families_of(entries, ()), noise_of(families, 300))
        held, predictions = held + found.held, predictions + found.predictions
    assert predictions == 40
    assert held >= 34, "95 % of 40 are 38; 34 and more in 99 of 100 such tests"


def test_a_break_in_the_law_is_not_foreseen_and_the_test_says_so(make_entry: Make) -> None:
    def broken(compute: float) -> float:
        return token(compute) + (8.0 if compute > 5e12 else 0.0)

    families = families_of(rows(make_entry, "token", broken), ())
    found = back_test(families, noise_of(families, 300))
    assert (found.held, found.predictions) == (0, 1)
