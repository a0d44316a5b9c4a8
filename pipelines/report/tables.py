"""The leaderboard for people: tables in the terminal, and Markdown."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from pipelines.common.numbers import PLUS_MINUS
from pipelines.common.tables import GAP, plain_table
from pipelines.report.captions import caption
from pipelines.results.column import Column
from pipelines.results.columns import MODEL, ON_THE_FRONT, PARTS, SCORE
from pipelines.results.columns_of_rows import measures, tasks
from pipelines.results.leaderboard import Group, Leaderboard
from pipelines.results.view import View

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from pipelines.results.entry import Entry

EMPTY = "The leaderboard is empty: no trial has been scored yet."
LABEL_WIDTH = 28
"""Terminal columns after which a label folds onto another line."""


def table(leaderboard: Leaderboard, width: int, view: View | None = None, most: int | None = None) -> RenderableType:
    """The leaderboard for a terminal ``width`` columns wide: one block a protocol, its caption below.

    Where not all columns fit side by side they continue in further tables, costs first, then Brier-1..4; no column
    is dropped. Of each protocol the first ``most`` rows are shown; unset means all.
    """
    from rich.console import Group as Renderables
    from rich.text import Text

    view = view or View()
    if not leaderboard.groups:
        return Text(EMPTY, style="dim")
    blocks: list[RenderableType] = []
    for group in leaderboard.groups:
        if blocks:
            blocks.append(Text())
        for columns in _fitting(group, width, view):
            blocks += [_table(group, columns, view, most), Text()]
        if most is not None and (more := len(group.entries) - most) > 0:
            blocks += [Text(f"The first {most} rows; there {'is' if more == 1 else 'are'} {more:,} more."), Text()]
        blocks.append(Text(caption(group, view), style="dim"))
    if len(leaderboard.groups) > 1:
        blocks += [Text(), Text(several_protocols(leaderboard), style="yellow")]
    return Renderables(*blocks)


def print_table(leaderboard: Leaderboard, console: Console, view: View | None = None, most: int | None = None) -> None:
    """Print :func:`table` at the console's own width."""
    console.print(table(leaderboard, console.width, view, most))


def markdown(leaderboard: Leaderboard, view: View | None = None) -> str:
    """The leaderboard as GitHub-flavoured Markdown: one table a protocol with its caption."""
    view = view or View()
    if not leaderboard.groups:
        return EMPTY + "\n"
    blocks = []
    for group in leaderboard.groups:
        columns = view.shown_columns(group)
        fronts = view.fronts(group)
        lines = [
            "| # | " + " | ".join(_escaped(column.title) for column in columns) + " |",
            "| --: | " + " | ".join(":--" if column.justify == "left" else "--:" for column in columns) + " |",
        ]
        for rank, entry in view.order(group):
            cells = [_escaped(column.cell(entry) + mark(column, entry, fronts)) for column in columns]
            lines.append(f"| {rank} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines) + "\n\n" + _escaped(caption(group, view)) + "\n")
    if len(leaderboard.groups) > 1:
        blocks.append(several_protocols(leaderboard) + "\n")
    return "\n".join(blocks)


def _fitting(group: Group, width: int, view: View) -> list[list[Column]]:
    """The columns beside the model's, cut into as many tables as the width demands."""
    every = view.shown_columns(group)[1:]
    marked = view.fronts(group).keys()
    rank = len(str(len(group.entries)))
    fixed = rank + GAP + min(LABEL_WIDTH, _width(MODEL, group))

    def fits(columns: list[Column]) -> bool:
        return fixed + sum(GAP + _width(column, group, column.key in marked) for column in columns) <= width

    if fits(every):
        return [every]
    apart = [] if view.columns is not None else [PARTS, tasks(group.entries), measures(group.entries)]
    keys = {column.key for part in apart for column in part}
    together = [column for column in every if column.key not in keys]
    tables: list[list[Column]] = []
    for part in filter(None, (together, *apart)):
        tables.append([])
        for column in part:
            if tables[-1] and not fits([*tables[-1], column]):
                tables.append([])
            tables[-1].append(column)
    return tables


def _table(group: Group, columns: list[Column], view: View, most: int | None) -> RenderableType:
    from rich.text import Text

    fronts = view.fronts(group)
    grid = plain_table()
    grid.add_column("#", justify="right", no_wrap=True)
    grid.add_column(MODEL.heading, max_width=LABEL_WIDTH, overflow="fold")
    for column in columns:
        grid.add_column(column.heading, justify=column.justify, no_wrap=True)
    aligned = {column.key: _cells(column, group) for column in columns}
    for rank, entry in view.order(group)[:most]:
        # Text, not str: a label is not markup, whatever brackets it has.
        cells = [Text(str(rank)), Text(MODEL.cell(entry))]
        for column in columns:
            marked = mark(column, entry, fronts)
            # A marked number stays aligned with those that are not.
            shown = aligned[column.key][entry] + (marked or " " * (column.key in fronts))
            cells.append(Text(shown, style="bold" if column.key == SCORE.key else "green" if marked else ""))
        grid.add_row(*cells)
    return grid


def _cells(column: Column, group: Group) -> dict[Entry, str]:
    """The cells of a column by row; those with errors have their ± below each other."""
    texts = {entry: column.cell(entry) for entry in group.entries}
    if column.is_text or not any(PLUS_MINUS in text for text in texts.values()):
        return texts
    behind = max(len(text.partition(PLUS_MINUS)[2]) for text in texts.values())
    return {
        entry: text + " " * (behind - len(text.partition(PLUS_MINUS)[2])) if PLUS_MINUS in text else text
        for entry, text in texts.items()
    }


def _width(column: Column, group: Group, marked: bool = False) -> int:
    """In characters, with room for a mark behind the value if ``marked``."""
    cells = _cells(column, group).values()
    return max(map(len, [*column.heading.split("\n"), *(cell + ON_THE_FRONT * marked for cell in cells)]))


def mark(column: Column, entry: Entry, fronts: dict[str, set[Entry]]) -> str:
    """Behind the value of a row that is on the front that ``column`` carries."""
    return ON_THE_FRONT if entry in fronts.get(column.key, ()) else ""


def several_protocols(leaderboard: Leaderboard) -> str:
    """Why there are several tables."""
    return (
        f"{len(leaderboard.groups)} protocols (corpus, tokenizer, context, positions or samples differ): "
        "scores of different protocols are not comparable, so each has a table of its own."
    )


def _escaped(text: str) -> str:
    """Plain text for Markdown: no markup, no HTML, no cell boundary."""
    escaped = text.replace("\\", "\\\\")
    for character in "|`*_[]":
        escaped = escaped.replace(character, "\\" + character)
    return html.escape(escaped, quote=False)
