"""What got better, worse, or neither since an older leaderboard."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from pipelines.results.baseline import changes_table, compare_boards
from pipelines.results.entry import Entry

Make = Callable[..., Entry]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(4.0, 6.0, "better"), (6.0, 4.0, "worse"), (4.0, 4.5, "neither"), (4.0, 4.0, "neither")],
)
def test_a_difference_counts_beyond_its_error(make_entry: Make, before: float, after: float, verdict: str) -> None:
    old, new = (make_entry(brierlm=score, brierlm_se=0.4) for score in (before, after))
    (change,) = compare_boards([old], [new])
    assert change.verdict == verdict
    assert change.difference is not None
    assert (change.difference.value, change.difference.error) == pytest.approx((after - before, 0.4 * 2**0.5))


def test_exact_scores_that_are_equal_are_no_news(make_entry: Make) -> None:
    (change,) = compare_boards([make_entry(brierlm_se=0.0)], [make_entry(brierlm_se=0.0)])
    assert change.verdict == "neither"


def test_rows_of_other_protocols_are_not_compared(make_entry: Make) -> None:
    old, new = make_entry(protocol_hash="a"), make_entry(protocol_hash="b", brierlm=50.0)
    changes = compare_boards([old], [new])
    assert {change.verdict for change in changes} == {"new", "gone"}
    assert all(change.difference is None for change in changes)


def test_new_and_gone_rows(make_entry: Make) -> None:
    changes = compare_boards(
        [make_entry(), make_entry(label="K=8", brierlm=1.0)], [make_entry(), make_entry(label="token", brierlm=20.0)]
    )
    assert [(change.label, change.verdict) for change in changes] == [
        ("token", "new"),
        ("K=4", "neither"),
        ("K=8", "gone"),
    ]


def test_a_name_is_no_markup(make_entry: Make) -> None:
    rows = [make_entry(label="[red]K=4\x1b[2J")]
    text = io.StringIO()
    Console(file=text, width=120).print(changes_table(compare_boards(rows, rows)))
    assert "[red]K=4" in text.getvalue()
    assert "\x1b[2J" not in text.getvalue()


def test_nothing_on_both_sides() -> None:
    assert compare_boards([], []) == []
