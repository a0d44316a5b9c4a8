"""What tuning gained, and that searching among equals gains nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evals.replicates import Replicates
from pipelines.results.entry import Entry
from pipelines.results.gains import gains_of, leading, without_untuned
from pipelines.results.headline import headline
from pipelines.study.row import Measure

Make = Callable[..., Entry]
GROUPS = 30
DOCUMENT_NOISE, MODEL_NOISE, SEED_NOISE = 3.0, 1.5, 0.4
"""Standard deviations between groups of documents, the same for all models and each model's own; and between seeds."""


def _row(make_entry: Make, groups: np.ndarray, role: str, seed: int, trial: int = 0, stratum: str = "") -> Entry:
    """The row of a model that has a score on each group of documents."""
    scores = (groups.sum() - groups) / (GROUPS - 1)
    error = float(groups.std(ddof=1) / np.sqrt(GROUPS))
    return make_entry(
        label=f"{role}, seed={seed}",
        trial=trial,
        seed=seed,
        configuration=f"{stratum} {role}",
        role=role,
        stratum=stratum,
        brierlm=float(groups.mean()),
        brierlm_se=error,
        replicates=Replicates("documents", scores).to_text(),
    )


def _tuned(make_entry: Make) -> list[Entry]:
    """Three seeds of what a search chose, and of what it began from: two BrierLM apart."""
    groups = np.linspace(20.0, 40.0, GROUPS)
    return [
        _row(make_entry, groups + 2.0 * (role == "selected") + 0.1 * seed, role, seed, stratum="K=4")
        for role in ("selected", "untuned")
        for seed in (1, 2, 3)
    ]


def test_searching_among_equals_gains_nothing_and_the_interval_says_so(make_entry: Make) -> None:
    """200 searches of 20 trials whose settings have no effect. The score by which the best was chosen is too high in
    nearly all of them; the gain on fresh seeds and text is 0 within its interval as often as 95 % promises."""
    chance = np.random.default_rng(0)
    covered, flattered = 0, 0
    for _ in range(200):
        tried = 30.0 + chance.normal(0, np.hypot(MODEL_NOISE / np.sqrt(GROUPS), SEED_NOISE), 20)
        flattered += tried.max() - tried[0] > 1.96 * np.hypot(MODEL_NOISE / np.sqrt(GROUPS), SEED_NOISE)
        shared = 30.0 + chance.normal(0, DOCUMENT_NOISE, GROUPS)
        rows = [
            _row(make_entry, shared + chance.normal(0, MODEL_NOISE, GROUPS) + chance.normal(0, SEED_NOISE), role, seed)
            for role in ("selected", "untuned")
            for seed in (1, 2, 3)
        ]
        (gain,) = gains_of(rows)
        covered += gain.low <= 0 <= gain.high
    # 190 are expected of an exact interval; 181 and more is what chance leaves of it in 999 of 1000 such tests.
    assert covered >= 181
    assert flattered > 60, "the test could not fail if choosing did not flatter"


def test_a_real_gain_is_found(make_entry: Make) -> None:
    rows = _tuned(make_entry)
    spent = (Measure(key="search_trials", value=12.0), Measure(key="search_flops", value=6e12))
    rows = [row.model_copy(update={"measures": spent}) if row.role == "selected" else row for row in rows]
    (gain,) = gains_of(rows)
    assert gain.value == pytest.approx(2.0)
    # Seeds vary by 0.1, so each mean of three by 0.058; four degrees of freedom between the two.
    assert gain.standard_error == pytest.approx(np.sqrt(2) * 0.1 / np.sqrt(3), rel=1e-3)
    assert gain.high - gain.value == pytest.approx(2.776 * gain.standard_error, rel=1e-3)
    assert (gain.stratum, gain.seeds, gain.trials, gain.search_flops) == ("K=4", 3, 12, 6e12)


def test_the_first_of_several_stands_for_its_search_whatever_test_text_says(make_entry: Make) -> None:
    rows = [
        make_entry(label="first", trial=4, role="selected", brierlm=3.0),
        make_entry(label="second", trial=5, role="selected", brierlm=9.0),
        make_entry(label="start", trial=6, role="untuned", brierlm=8.0),
        make_entry(label="elsewhere", trial=0, protocol_hash="other"),
    ]
    assert [row.label for row in leading(rows)] == ["first"]
    assert [row.label for row in without_untuned(rows)] == ["elsewhere", "first"]
    assert without_untuned(rows[3:]) == rows[3:]


def test_each_study_is_compared_with_what_it_began_from_itself(make_entry: Make) -> None:
    """A renamed study and one of the same name with a wider range, whose searches are called alike."""
    rows = []
    for (study, identity), chosen, start in (
        (("first", "aa" * 8), 5.0, 4.0),
        (("second", "bb" * 8), 9.0, 3.0),
        (("second", "cc" * 8), 8.0, 3.0),
    ):
        of = {"study": study, "study_identity": identity, "stratum": "K=4"}
        rows.append(make_entry(trial=4, role="selected", brierlm=chosen, configuration=f"{identity} tuned", **of))
        # The last two began from the same settings, which were trained once.
        rows.append(make_entry(trial=5, role="untuned", brierlm=start, configuration=f"{study} untuned", seed=1, **of))
    for order in (rows, rows[::-1]):
        gains = gains_of(order)
        assert {(gain.study, gain.value) for gain in gains} == {
            ("first", 1.0),
            ("second-bbbb", 6.0),
            ("second-cccc", 5.0),
        }
        assert all(gain.sentence.startswith(f"Tuning K=4 in {gain.study}") for gain in gains)
    assert [row.brierlm for row in leading(rows)] == [5.0, 9.0, 8.0]


def test_without_what_it_began_from_there_is_no_gain_to_tell(make_entry: Make) -> None:
    assert gains_of([make_entry(role="selected"), make_entry(role="search", trial=1)]) == []


def test_the_end_of_a_run_says_what_tuning_gained_and_cost(make_entry: Make) -> None:
    rows = _tuned(make_entry)
    assert any(sentence.startswith("Tuning K=4 gained +2") for sentence in headline(rows).brief)
    spent = (Measure(key="search_trials", value=12.0), Measure(key="search_flops", value=6e12))
    rows = [row.model_copy(update={"measures": spent}) if row.role == "selected" else row for row in rows]
    told = headline(rows)
    (said,) = [sentence for sentence in told.brief if sentence.startswith("Tuning")]
    assert said.startswith("Tuning K=4 (12 trials, 6.00e12 training FLOPs) gained +2")
    assert said in told.sentences


def test_two_clipped_rows_have_no_gain_to_tell(make_entry: Make) -> None:
    """Their difference is 0 without an error, which was told as ``+0.00±0`` and as chance."""
    parts = {"brier": (0.1, 0.01, -0.002, -0.001), "brierlm": 0.0, "brierlm_se": 0.0}
    rows = [
        make_entry(label=role, trial=trial, role=role, **parts) for trial, role in enumerate(("selected", "untuned"))
    ]
    (gain,) = gains_of(rows)
    assert gain.is_clipped
    assert gain.sentence == (
        "Tuning: no gain can be told, what it chose and what it began from both have BrierLM 0 (clipped: one of the "
        "four Brier-n is not positive) (1 fresh training of each, on text that chose neither)."
    )
