from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.console import Console

from pipelines.common.numbers import compact, duration, floored_percent, printable, scientific, with_error
from pipelines.report.captions import caption
from pipelines.report.tables import markdown, print_table
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard


def printed(leaderboard: Leaderboard, width: int, most: int | None = None) -> list[str]:
    console = Console(width=width, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as capture:
        print_table(leaderboard, console, most=most)
    return capture.get().splitlines()


def test_120_columns_hold_everything_in_one_table(ablation: list[Entry]) -> None:
    lines = printed(Leaderboard(ablation), 120)
    assert max(map(len, lines)) <= 120
    (row,) = [line for line in lines if " K=4 " in line]
    for text in ("10.87±0.27", "30.10±0.60", "4.50±0.10", "99.93%", "912k", "7.80e12*", "8.90e5*", "2:03"):
        assert text in row


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_narrow_terminal_gets_more_tables_and_loses_nothing(ablation: list[Entry], width: int) -> None:
    lines = printed(Leaderboard(ablation), width)
    assert max(map(len, lines)) <= width
    rows = " ".join(line for line in lines if " K=4 " in line)
    for text in ("10.87±0.27", "30.10±0.60", "13.20±0.30", "4.50±0.10", "99.93%", "7.80e12*", "8.90e5*", "2:03"):
        assert text in rows
    assert "…" not in "".join(lines)


def test_of_a_long_board_the_best_rows_are_shown_and_the_others_counted(ablation: list[Entry]) -> None:
    board = Leaderboard(ablation)
    best = [row.label for row in board.groups[0].entries]
    lines = printed(board, 120, most=2)
    shown = [label for label in best if any(f"  {label} " in line for line in lines)]
    assert shown == best[:2]
    assert f"The first 2 rows; there are {len(best) - 2} more." in lines
    assert not any("more." in line for line in printed(board, 120, most=len(best)))


def test_long_and_hostile_labels_are_text(make_entry: Callable[..., Entry]) -> None:
    label = "[bold red]model.chunk_size=4[/] model.head.width=128 \x1b[2J<b>|"
    lines = printed(Leaderboard([make_entry(label=label)]), 120)
    assert max(map(len, lines)) <= 120
    text = "".join(lines)
    assert "\x1b" not in text
    assert "[bold" in text  # and not taken for markup
    row = next(line for line in markdown(Leaderboard([make_entry(label=label)])).splitlines() if "chunk" in line)
    assert "\\|" in row
    assert "<b>" not in row


def test_markdown_has_one_cell_a_column(ablation: list[Entry]) -> None:
    text = markdown(Leaderboard(ablation))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 5
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert "7.80e12\\*" in text
    assert "| 2.13e13 |" in text  # K=1 is beaten on cost and score


def test_the_caption_says_what_the_numbers_were_measured_with(
    ablation: list[Entry], make_entry: Callable[..., Entry]
) -> None:
    text = caption(Leaderboard([*ablation, make_entry(num_positions=9, seed=3)]).groups[0])
    for part in ("9 to 21,344 positions", "412 documents", "8 samples", "3f9a0c1be27d5a44", "seeds 0, 3", "sample T=1"):
        assert part in text


def test_protocols_stand_apart_and_it_is_said(ablation: list[Entry], make_entry: Callable[..., Entry]) -> None:
    leaderboard = Leaderboard([*ablation, make_entry(protocol_hash="ffff")])
    for text in (" ".join(printed(leaderboard, 120)), markdown(leaderboard)):
        assert "2 protocols" in text
        assert "not comparable" in text


def test_rows_that_differ_in_study_or_seed_say_so(make_entry: Callable[..., Entry]) -> None:
    one = printed(Leaderboard([make_entry()]), 120)
    assert not any("Seed" in line or "Study" in line for line in one)
    several = printed(Leaderboard([make_entry(seed=0), make_entry(seed=1, study="other")]), 140)
    assert any("Seed" in line and "Study" in line for line in several)


def test_an_empty_leaderboard_says_that_it_is_empty() -> None:
    assert "empty" in printed(Leaderboard([]), 80)[0]
    assert "empty" in markdown(Leaderboard([]))


def test_numbers_as_text() -> None:
    assert [compact(n) for n in (0, 999, 1000, 9996, 12345, 281e6, 999.6e6)] == [
        "0",
        "999",
        "1.00k",
        "10.0k",
        "12.3k",
        "281M",
        "1.00G",
    ]
    assert scientific(1.314e13) == "1.31e13"
    assert scientific(0) == "0.00e0"
    assert [duration(s) for s in (8.4, 60, 125, 12000)] == ["8 s", "1:00", "2:05", "3:20:00"]
    # 99.996 % is not all of them.
    assert [floored_percent(s) for s in (0.99996, 1.0, 0.9993, None)] == ["99.99%", "100.00%", "99.93%", "–"]  # noqa: RUF001
    assert [with_error(1.234, e) for e in (0.21, 0.001, 0.0)] == ["1.23±0.21", "1.2340±0.0010", "1.23±0"]
    assert printable("a\tb\n\x1bc") == "a b �c"
