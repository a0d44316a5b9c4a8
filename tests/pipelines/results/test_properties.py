"""What holds for all rows: in any order, twice, tied, with numbers missing, alone, below zero."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.task_score import TaskScore
from pipelines.results.columns import SCORE, columns_of
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Group, Leaderboard
from pipelines.results.merging import merged
from pipelines.results.pareto import pareto_front, pareto_front_within_errors
from pipelines.results.pooling import pooled
from pipelines.results.view import front_of

Make = Callable[..., Entry]
# Few different numbers, so that ties and duplicates are common.
NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-100, 100))
MISSING = st.one_of(st.none(), st.just(math.nan), NUMBERS)
PAIRS = st.lists(st.tuples(MISSING, MISSING), max_size=10)
ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 3), NUMBERS, st.floats(0, 5), st.one_of(st.none(), NUMBERS)),
    max_size=8,
)
CHANCE = st.randoms(use_true_random=False)


def moderate(test: Callable[..., None]) -> Callable[..., None]:
    # The fixture is a function without state, so that sharing it between examples is harmless.
    return settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])(test)


def entries_of(make_entry: Make, rows: list[tuple[str, int, float, float, float | None]]) -> list[Entry]:
    return [
        make_entry(
            label=f"{configuration}, seed={seed}",
            configuration=configuration,
            seed=seed,
            trial=number,
            brierlm=score,
            brierlm_se=error,
            tasks=()
            if accuracy is None
            else (
                TaskScore(
                    task="quiz",
                    metric="acc",
                    value=accuracy,
                    standard_error=0.1,
                    monte_carlo_error=None,
                    num_documents=9,
                    num_samples=0,
                    scorer="exact",
                    protocol_hash="q",
                ),
            ),
            model_identity=f"{configuration}{seed}{number}",
        )
        for number, (configuration, seed, score, error, accuracy) in enumerate(rows)
    ]


def shuffled(rows: list[Entry], chance: random.Random) -> list[Entry]:
    found = rows[:]
    chance.shuffle(found)
    return found


@moderate
@given(rows=ROWS, chance=CHANCE)
def test_pooling_knows_no_order_and_no_duplicates(
    make_entry: Make, rows: list[tuple[str, int, float, float, float | None]], chance: random.Random
) -> None:
    entries = entries_of(make_entry, rows)
    once = pooled(entries)
    assert pooled(shuffled(entries, chance)) == once
    assert pooled([*entries, *shuffled(entries, chance)]) == once
    assert pooled(once) == once


@moderate
@given(rows=ROWS)
def test_a_pooled_row_lies_among_its_seeds_and_its_error_is_no_smaller(
    make_entry: Make, rows: list[tuple[str, int, float, float, float | None]]
) -> None:
    entries = entries_of(make_entry, rows)
    for row in pooled(entries):
        first = {entry.seed: entry for entry in reversed(entries) if entry.configuration == row.configuration}
        scores = [entry.brierlm for entry in first.values()]
        assert min(scores) - 1e-9 <= row.brierlm <= max(scores) + 1e-9
        assert sorted(row.seeds or (row.seed,)) == sorted(first)
        mean_square = sum(entry.brierlm_se**2 for entry in first.values()) / len(first)
        assert row.brierlm_se**2 >= mean_square - 1e-9
        # A task counts only where every seed has it.
        assert bool(row.tasks) == all(entry.tasks for entry in first.values())


@moderate
@given(rows=ROWS, chance=CHANCE)
def test_a_leaderboard_knows_no_order_and_no_duplicates(
    make_entry: Make, rows: list[tuple[str, int, float, float, float | None]], chance: random.Random
) -> None:
    entries = entries_of(make_entry, rows)
    board, again = Leaderboard(entries), Leaderboard([*shuffled(entries, chance), *entries])
    assert again.to_json() == board.to_json()
    assert Leaderboard.from_json(board.to_json()).to_json() == board.to_json()
    for group in board.groups:
        assert list(group.ranks) == sorted(group.ranks)
        assert group.ranks[0] == 1
        for entry, rank in zip(group.entries, group.ranks, strict=True):
            ties = {
                other for one, other in zip(group.entries, group.ranks, strict=True) if one.brierlm == entry.brierlm
            }
            assert ties == {rank}


@moderate
@given(rows=ROWS, chance=CHANCE)
def test_merging_in_any_order_without_conflicts_gives_the_same_rows(
    make_entry: Make, rows: list[tuple[str, int, float, float, float | None]], chance: random.Random
) -> None:
    entries = entries_of(make_entry, rows)
    half = len(entries) // 2
    whole = merged([("a", entries)])
    parts = merged([("b", shuffled(entries[half:], chance)), ("a", entries[: half + 1]), ("c", entries)])
    assert parts.remarks == whole.remarks == ()
    assert set(parts.entries) == set(whole.entries) == set(entries)


@given(points=PAIRS, chance=CHANCE)
def test_a_front_knows_no_order_and_duplicates_share_their_fate(
    points: list[tuple[float | None, float | None]], chance: random.Random
) -> None:
    front = pareto_front(points)
    order = list(range(len(points)))
    chance.shuffle(order)
    assert pareto_front([points[index] for index in order]) == [front[index] for index in order]
    assert pareto_front([*points, *points]) == front + front


@given(points=PAIRS)
def test_a_front_is_what_nothing_dominates(points: list[tuple[float | None, float | None]]) -> None:
    complete = [
        (c, s) for c, s in points if c is not None and s is not None and not math.isnan(c) and not math.isnan(s)
    ]
    for (cost, score), is_on in zip(points, pareto_front(points), strict=True):
        beaten = cost is None or score is None or math.isnan(cost) or math.isnan(score)
        beaten = beaten or any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in complete)  # type: ignore[operator]
        assert is_on == (not beaten)
    assert any(pareto_front(points)) == bool(complete)


@given(
    points=st.lists(st.tuples(st.one_of(st.just(math.nan), NUMBERS), NUMBERS, st.floats(0, 3)), max_size=8),
    chance=CHANCE,
)
def test_the_front_within_errors_holds_the_plain_one(
    points: list[tuple[float, float, float]], chance: random.Random
) -> None:
    def front(rows: list[tuple[float, float, float]], scale: float) -> list[bool]:
        cost, score, error = (np.array([row[n] for row in rows]) for n in range(3))
        joint = scale * np.hypot(error[:, None], error[None, :])
        return pareto_front_within_errors([-cost, score], [np.zeros_like(joint), joint])

    plain = pareto_front([(cost, score) for cost, score, _ in points])
    assert front(points, 0.0) == plain
    wide = front(points, 1.0)
    assert all(is_on for is_on, was_on in zip(wide, plain, strict=True) if was_on)
    order = list(range(len(points)))
    chance.shuffle(order)
    assert front([points[index] for index in order], 1.0) == [wide[index] for index in order]


@pytest.mark.parametrize("within_errors", [False, True])
def test_one_row_is_a_front_of_its_own_and_one_without_the_number_is_none(
    make_entry: Make, within_errors: bool
) -> None:
    (group,) = Leaderboard([make_entry(brierlm=-2.0, autoencoder_accuracy=None)]).groups
    known = columns_of(group.entries)
    assert front_of(group, known["parameters"], SCORE, within_errors) == list(group.entries)
    assert front_of(group, known["autoencoder_accuracy"], SCORE, within_errors) == []
    assert Group("none", ()).ranks == ()
