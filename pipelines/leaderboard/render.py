"""The leaderboard for people: tables in the terminal, and Markdown."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.leaderboard.leaderboard import Group, Leaderboard
from pipelines.leaderboard.numbers import MISSING, compact, duration, floored_percent, printable, scientific, with_error
from pipelines.scoring.task_score import EXACT

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from pipelines.leaderboard.entry import Entry
    from pipelines.scoring.task_score import TaskScore

EMPTY = "The leaderboard is empty: no trial has been scored yet."
ON_THE_FRONT = "*"
LABEL_WIDTH = 28
"""Terminal columns after which a label folds onto another line."""
PERCENTAGES = frozenset({"acc", "acc_norm", "best_acc", "exact_match"})
GAP = 2
"""Spaces between two columns of a terminal table."""


@dataclass(frozen=True)
class Column:
    """What a column shows of a row."""

    heading: str
    cell: Callable[[Entry], str]
    justify: Literal["left", "right"] = "right"
    front: Literal["total_training_flops", "inference_flops_per_token"] | None = None
    """The cost whose Pareto front is marked in this column."""

    def width(self, entries: tuple[Entry, ...]) -> int:
        texts = [*self.heading.split("\n"), *(self.cell(entry) + ON_THE_FRONT * bool(self.front) for entry in entries)]
        return max(map(len, texts))


def _part(n: int) -> Column:
    # Times 100, so that they stand on the scale of BrierLM, which is their geometric mean times 100.
    return Column(f"Brier-{n}", lambda entry: with_error(100 * entry.brier[n - 1], 100 * entry.brier_se[n - 1]))


MODEL = Column("Model", lambda entry: printable(entry.label), justify="left")
STUDY = Column("Study", lambda entry: printable(entry.study), justify="left")
SEED = Column("Seed", lambda entry: ", ".join(map(str, entry.seeds or [entry.seed])))
SCORE = Column("BrierLM", lambda entry: with_error(entry.brierlm, entry.brierlm_se))
PARTS = [_part(n) for n in range(1, 5)]
COSTS = [
    Column("Auto-\nencoder", lambda entry: floored_percent(entry.autoencoder_accuracy)),
    Column("Para-\nmeters", lambda entry: compact(entry.parameters)),
    Column("Training\nFLOPs", lambda entry: scientific(entry.total_training_flops), front="total_training_flops"),
    Column(
        "FLOPs /\ntoken", lambda entry: scientific(entry.inference_flops_per_token), front="inference_flops_per_token"
    ),
    Column("Time", lambda entry: duration(entry.total_wall_time_s)),
]


def table(leaderboard: Leaderboard, width: int) -> RenderableType:
    """The leaderboard for a terminal ``width`` columns wide: one block a protocol, its caption below.

    Where not all columns fit side by side they continue in further tables, costs first, then Brier-1..4; no column
    is dropped.
    """
    from rich.console import Group as Renderables
    from rich.text import Text

    if not leaderboard.groups:
        return Text(EMPTY, style="dim")
    blocks: list[RenderableType] = []
    for group in leaderboard.groups:
        if blocks:
            blocks.append(Text())
        for columns in _fitting(group, width):
            blocks += [_table(group, columns), Text()]
        blocks.append(Text(caption(group), style="dim"))
    if len(leaderboard.groups) > 1:
        blocks += [Text(), Text(_several_protocols(leaderboard), style="yellow")]
    return Renderables(*blocks)


def print_table(leaderboard: Leaderboard, console: Console) -> None:
    """Print :func:`table` at the console's own width."""
    console.print(table(leaderboard, console.width))


def markdown(leaderboard: Leaderboard) -> str:
    """The leaderboard as GitHub-flavoured Markdown: one table a protocol with its caption."""
    if not leaderboard.groups:
        return EMPTY + "\n"
    blocks = []
    for group in leaderboard.groups:
        columns = [MODEL, *_distinguishing(group), SCORE, *PARTS, *_tasks(group), *COSTS]
        fronts = _fronts(group)
        headings = [_escaped(column.heading.replace("-\n", "").replace("\n", " ")) for column in columns]
        lines = [
            "| # | " + " | ".join(headings) + " |",
            "| --: | " + " | ".join(":--" if column.justify == "left" else "--:" for column in columns) + " |",
        ]
        for rank, entry in zip(group.ranks, group.entries, strict=True):
            cells = [_escaped(column.cell(entry) + _mark(column, entry, fronts)) for column in columns]
            lines.append(f"| {rank} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines) + "\n\n" + _escaped(caption(group)) + "\n")
    if len(leaderboard.groups) > 1:
        blocks.append(_several_protocols(leaderboard) + "\n")
    return "\n".join(blocks)


def caption(group: Group) -> str:
    """What the numbers mean and what they were measured with."""
    entries = group.entries
    seeds = sorted({seed for entry in entries for seed in entry.seeds or [entry.seed]})
    errors = "documents and seeds" if any(entry.seeds for entry in entries) else "documents"
    modes = sorted({printable(entry.decode_mode) for entry in entries})
    return (
        f"BrierLM and Brier-n times 100, higher is better, ± one standard error over {errors}: "
        f"{_spread([entry.num_positions for entry in entries])} positions "
        f"in {_spread([entry.num_documents for entry in entries])} documents, "
        f"{_spread([entry.num_samples for entry in entries])} samples at each; protocol {group.protocol_hash}; "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}. "
        "Rows share a rank where their errors leave the difference open (5 % level); calm-bench compare, which pairs "
        "documents, is sharper. "
        f"Autoencoder: held-out tokens it reconstructs. Training FLOPs and time include the autoencoder's. "
        f"FLOPs / token: inference by {' or '.join(modes)}. "
        f"{_tasks_caption(entries)}"
        f"{ON_THE_FRONT} on the Pareto front: no row scores as high for less."
    )


def _tasks_caption(entries: tuple[Entry, ...]) -> str:
    scores = [score for entry in entries for score in entry.tasks]
    if not scores:
        return ""
    scorers = sorted({printable(score.scorer) for score in scores} - {EXACT})
    compared = f"; without a likelihood, choices are compared by {' or '.join(scorers)}" if scorers else ""
    return (
        f"Accuracies times 100, ± one standard error over {_spread([score.num_documents for score in scores])} "
        f"documents{compared}. "
    )


def _distinguishing(group: Group) -> list[Column]:
    """Columns that are needed only where the rows differ in them."""
    several: list[tuple[Column, int]] = [
        (STUDY, len({entry.study for entry in group.entries})),
        (SEED, len({seed for entry in group.entries for seed in entry.seeds or [entry.seed]})),
    ]
    return [column for column, count in several if count > 1]


def _tasks(group: Group) -> list[Column]:
    """A column for every task that a row was scored on; a task under several protocols has a column for each."""
    found = sorted({(score.name, score.protocol_hash) for entry in group.entries for score in entry.tasks})
    several = {name for name, count in Counter(name for name, _ in found).items() if count > 1}
    return [_task(name, protocol, name in several) for name, protocol in found]


def _task(name: str, protocol: str, is_one_of_several: bool) -> Column:
    def cell(entry: Entry) -> str:
        for score in entry.tasks:
            if (score.name, score.protocol_hash) == (name, protocol):
                return task_value(score)
        return MISSING

    return Column(printable(name).replace(" ", "\n") + (f"\n{protocol[:6]}" if is_one_of_several else ""), cell)


def task_value(score: TaskScore) -> str:
    """Accuracies times 100 as the leaderboard shows scores; other metrics as they are."""
    scale = 100.0 if score.metric in PERCENTAGES else 1.0
    if score.standard_error is None:
        return f"{scale * score.value:.2f}"
    return with_error(scale * score.value, scale * score.standard_error)


def _fitting(group: Group, width: int) -> list[list[Column]]:
    """The columns, cut into as many tables as the width demands."""
    every = [*_distinguishing(group), SCORE, *PARTS, *_tasks(group), *COSTS]
    rank = len(str(len(group.entries)))
    fixed = rank + GAP + min(LABEL_WIDTH, MODEL.width(group.entries))

    def fits(columns: list[Column]) -> bool:
        return fixed + sum(GAP + column.width(group.entries) for column in columns) <= width

    if fits(every):
        return [every]
    tables: list[list[Column]] = []
    for part in filter(None, ([*_distinguishing(group), SCORE, *COSTS], PARTS, _tasks(group))):
        tables.append([])
        for column in part:
            if tables[-1] and not fits([*tables[-1], column]):
                tables.append([])
            tables[-1].append(column)
    return tables


def _table(group: Group, columns: list[Column]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    fronts = _fronts(group)
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    grid.add_column("#", justify="right", no_wrap=True)
    grid.add_column(MODEL.heading, max_width=LABEL_WIDTH, overflow="fold")
    for column in columns:
        grid.add_column(column.heading, justify=column.justify, no_wrap=True)
    for rank, entry in zip(group.ranks, group.entries, strict=True):
        # Text, not str: a label is not markup, whatever brackets it has.
        cells = [Text(str(rank)), Text(MODEL.cell(entry))]
        for column in columns:
            mark = _mark(column, entry, fronts)
            # A marked number stays aligned with those that are not.
            shown = column.cell(entry) + (mark or " " * bool(column.front))
            cells.append(Text(shown, style="bold" if column is SCORE else "green" if mark else ""))
        grid.add_row(*cells)
    return grid


def _fronts(group: Group) -> dict[str, set[Entry]]:
    return {
        "total_training_flops": set(group.front("total_training_flops")),
        "inference_flops_per_token": set(group.front("inference_flops_per_token")),
    }


def _mark(column: Column, entry: Entry, fronts: dict[str, set[Entry]]) -> str:
    return ON_THE_FRONT if column.front is not None and entry in fronts[column.front] else ""


def _several_protocols(leaderboard: Leaderboard) -> str:
    return (
        f"{len(leaderboard.groups)} protocols (corpus, tokenizer, context, positions or samples differ): "
        "scores of different protocols are not comparable, so each has a table of its own."
    )


def _spread(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _escaped(text: str) -> str:
    """Plain text for Markdown: no markup, no HTML, no cell boundary."""
    escaped = text.replace("\\", "\\\\")
    for character in "|`*_[]":
        escaped = escaped.replace(character, "\\" + character)
    return html.escape(escaped, quote=False)
