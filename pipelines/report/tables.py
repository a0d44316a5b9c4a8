"""The leaderboard for people: tables in the terminal, and Markdown."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evals.task_score import EXACT
from pipelines.common.numbers import MISSING, PLUS_MINUS, compact, duration, printable, scientific
from pipelines.common.tables import GAP, plain_table
from pipelines.results.column import Column
from pipelines.results.columns import GENERATED, INFERENCE, MODEL, ON_THE_FRONT, PARTS, SCORE, TRAINING, usual_columns
from pipelines.results.columns_of_rows import PERCENTAGES, measures, task_value, tasks
from pipelines.results.error_unit import copies_among, errors_over, few_documents
from pipelines.results.leaderboard import Group, Leaderboard
from pipelines.results.unlike_arithmetic import unlike_arithmetic
from pipelines.results.view import View
from pipelines.study.equal_budget import parse_budget

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from pipelines.results.entry import Entry

__all__ = [
    "ON_THE_FRONT",
    "PERCENTAGES",
    "budget_in_words",
    "caption",
    "generation_caption",
    "markdown",
    "print_table",
    "table",
    "task_value",
]

EMPTY = "The leaderboard is empty: no trial has been scored yet."
MOST_NAMES = 3
"""Rows that a sentence below a table names."""
LABEL_WIDTH = 28
"""Terminal columns after which a label folds onto another line."""


def table(leaderboard: Leaderboard, width: int, view: View | None = None) -> RenderableType:
    """The leaderboard for a terminal ``width`` columns wide: one block a protocol, its caption below.

    Where not all columns fit side by side they continue in further tables, costs first, then Brier-1..4; no column
    is dropped.
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
            blocks += [_table(group, columns, view), Text()]
        blocks.append(Text(caption(group, view), style="dim"))
    if len(leaderboard.groups) > 1:
        blocks += [Text(), Text(several_protocols(leaderboard), style="yellow")]
    return Renderables(*blocks)


def print_table(leaderboard: Leaderboard, console: Console, view: View | None = None) -> None:
    """Print :func:`table` at the console's own width."""
    console.print(table(leaderboard, console.width, view))


def markdown(leaderboard: Leaderboard, view: View | None = None) -> str:
    """The leaderboard as GitHub-flavoured Markdown: one table a protocol with its caption."""
    view = view or View()
    if not leaderboard.groups:
        return EMPTY + "\n"
    blocks = []
    for group in leaderboard.groups:
        columns = shown_columns(group, view)
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


def shown_columns(group: Group, view: View) -> list[Column]:
    """The model first, then what was asked for, or all that people compare models by."""
    if view.columns is not None:
        return [MODEL, *(column for column in view.columns if column is not MODEL)]
    usual = usual_columns(group.entries)
    keys = {column.key for column in usual}
    asked = [*(view.pareto or ()), *([view.sort[0]] if view.sort else [])]
    return usual + list({column.key: column for column in asked if column.key not in keys}.values())


def caption(group: Group, view: View | None = None) -> str:
    """What the numbers of the shown columns mean and what they were measured with."""
    view = view or View()
    entries = group.entries
    columns = shown_columns(group, view)
    keys = {column.key for column in columns}
    seeds = sorted({seed for entry in entries for seed in entry.seeds or [entry.seed]})
    modes = sorted({printable(entry.decode_mode) for entry in entries})
    inference = f"FLOPs / token: inference by {' or '.join(modes)}. "
    return (
        f"{_scores_caption(keys)}± one standard error over {errors_over(entries)}: "
        f"{_spread([entry.num_positions for entry in entries])} positions "
        f"in {_spread([entry.num_documents for entry in entries])} documents{_text_caption(entries)}, "
        f"{_spread([entry.num_samples for entry in entries])} samples at each; protocol {group.protocol_hash}; "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}. "
        f"{sentence(few_documents(entries))}"
        f"{sentence(copies_among(entries))}"
        f"{sentence(unlike_arithmetic(entries))}"
        f"{_clipped_caption(entries) if SCORE.key in keys else ''}"
        f"{_ranks_caption(group)}"
        f"{_autoencoder_caption(keys)}"
        f"{_budget_caption(entries)}"
        f"{inference if INFERENCE.key in keys else ''}"
        f"{_unpriced_caption(entries) if any(column.form == 'flops' for column in columns) else ''}"
        f"{generation_caption(entries) if GENERATED in columns else ''}"
        f"{_tasks_caption(entries) if keys & {column.key for column in tasks(entries)} else ''}"
        f"{_measures_caption(entries, keys)}"
        f"{_front_caption(view) if keys & view.fronts(group).keys() else ''}"
    ).rstrip()


def _scores_caption(keys: set[str]) -> str:
    """The scale of the scores among the columns ``keys``; other columns carry their unit in their headings."""
    names = ["BrierLM"] if SCORE.key in keys else []
    names += ["Brier-n"] if keys & {part.key for part in PARTS} else []
    return f"{' and '.join(names)} times 100, higher is better, " if names else "Scores "


def _autoencoder_caption(keys: set[str]) -> str:
    """What belongs to the autoencoder among the columns ``keys``."""
    told = "Autoencoder: held-out tokens it reconstructs. " if "autoencoder_accuracy" in keys else ""
    whole = ["FLOPs"] if TRAINING.key in keys else []
    whole += ["time"] if "total_wall_time_s" in keys else []
    if not whole:
        return told
    verb = "includes" if whole == ["time"] else "include"
    return f"{told}Training {' and '.join(whole)} {verb} the autoencoder's. "


def _text_caption(entries: tuple[Entry, ...]) -> str:
    """The text that was scored, where the rows say so; rows of one protocol have one."""
    texts = sorted({printable(entry.text) for entry in entries if entry.text})
    return f" ({' or '.join(texts)})" if texts else ""


def _unpriced_caption(entries: tuple[Entry, ...]) -> str:
    """Rows whose FLOPs are not known, which are on no front; nothing where there is none."""
    names = [printable(entry.label) for entry in entries if entry.compute is None]
    if not names:
        return ""
    told = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
    return f"What {told} cost is not all known ({MISSING}): without FLOPs a row is on no Pareto front of them. "


def sentence(text: str) -> str:
    """``text`` with room behind it, where there is any."""
    return f"{text} " if text else ""


def _ranks_caption(group: Group) -> str:
    """By which test rows share a rank, and what it leaves out."""
    told = "Rows share a rank where their errors leave the difference open (5 % level), "
    if len(group.entries) < 2 or group.differences.all_paired:
        told += "with documents paired. "
    elif group.differences.any_paired:
        told += "with documents paired where both rows hold their scores, else with the two errors summed. "
    else:
        told += (
            "the two errors summed, since documents are not paired where a row holds no scores of them or its BrierLM "
            "is 0; calm-bench compare pairs, and is sharper. "
        )
    if not all(entry.seeds for entry in group.entries):
        told += "A row of one seed is one trained model: what another seed would score is not in its error. "
    return told


def _front_caption(view: View) -> str:
    if view.pareto is None:
        told = f"{ON_THE_FRONT} on the Pareto front: no row scores as high for less."
    else:
        x, y = view.pareto
        told = f"{ON_THE_FRONT} on the Pareto front of {x.title} and {y.title}."
    if view.within_errors:
        told += " Beaten is only what another row beats beyond the errors."
    return told


def _budget_caption(entries: tuple[Entry, ...]) -> str:
    """What was equal among the language models; nothing where no row's study says so."""
    budgets = list(dict.fromkeys(entry.budget for entry in entries if entry.training_flops is not None))
    if budgets in ([], [None]):
        return ""
    told = [budget_in_words(budget) for budget in budgets if budget is not None]
    told += ["some as configured"] if None in budgets else []
    return f"Budget of a language model's training: {', '.join(told)}. "


def budget_in_words(text: str) -> str:
    """``equal-flops 3.5e12`` as ``equal FLOPs (3.50e12, autoencoders not counted)``; what is no budget, as it is."""
    try:
        budget = parse_budget(text)
    except ValueError:
        return printable(text)
    amount = budget.amount
    match budget.equal:
        case "flops":
            return "equal FLOPs (" + ("" if amount is None else f"{scientific(amount)}, ") + "autoencoders not counted)"
        case "total-flops":
            return "equal FLOPs with its autoencoder's" + ("" if amount is None else f" ({scientific(amount)})")
        case "tokens":
            return "equal tokens" + ("" if amount is None else f" ({compact(amount)})")
    return "equal wall time" + ("" if amount is None else f" ({duration(amount)})") + ", as measured where it began"


def generation_caption(entries: Iterable[Entry]) -> str:
    """How the speeds of writing were measured; nothing where there are none."""
    ways = sorted({printable(entry.generation) for entry in entries if entry.generation})
    if not ways:
        return ""
    return (
        f"Tokens/s generated: measured with {' or '.join(ways)}, after the prompts were read, beside whatever else the "
        "machine did. "
    )


def _tasks_caption(entries: tuple[Entry, ...]) -> str:
    scores = [score for entry in entries for score in entry.tasks]
    if not scores:
        return ""
    scorers = sorted({printable(score.scorer) for score in scores} - {EXACT})
    compared = f"; without a likelihood, choices are compared by {' or '.join(scorers)}" if scorers else ""
    return (
        f"Accuracies times 100, ± one standard error over {_spread([score.num_documents for score in scores])} "
        f"documents{compared}. {_truncated_caption(entries)}"
    )


def _truncated_caption(entries: tuple[Entry, ...]) -> str:
    """Tasks of which prompts did not fit; each with the most that a row lost."""
    most: dict[str, int] = {}
    for score in (score for entry in entries for score in entry.tasks if score.num_truncated):
        most[score.task] = max(score.num_truncated, most.get(score.task, 0))
    if not most:
        return ""
    told = ", ".join(f"{count:,} of {printable(task)}" for task, count in sorted(most.items()))
    return f"Prompts longer than what is read lost their beginning: {told}. "


def _measures_caption(entries: tuple[Entry, ...], keys: set[str]) -> str:
    """What the measures among the columns ``keys`` are."""
    found = {measure.key: measure for entry in reversed(entries) for measure in entry.measures if measure.description}
    return "".join(
        f"{printable(one.heading or key)}: {printable(one.description)} " for key, one in found.items() if key in keys
    )


def _clipped_caption(entries: tuple[Entry, ...]) -> str:
    """What a score of 0 means; nothing where there is none."""
    if all(entry.brierlm for entry in entries):
        return ""
    return "0 (clipped): BrierLM is 0 where a Brier-n is not positive. "


def _fitting(group: Group, width: int, view: View) -> list[list[Column]]:
    """The columns beside the model's, cut into as many tables as the width demands."""
    every = shown_columns(group, view)[1:]
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


def _table(group: Group, columns: list[Column], view: View) -> RenderableType:
    from rich.text import Text

    fronts = view.fronts(group)
    grid = plain_table()
    grid.add_column("#", justify="right", no_wrap=True)
    grid.add_column(MODEL.heading, max_width=LABEL_WIDTH, overflow="fold")
    for column in columns:
        grid.add_column(column.heading, justify=column.justify, no_wrap=True)
    aligned = {column.key: _cells(column, group) for column in columns}
    for rank, entry in view.order(group):
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


def _spread(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _escaped(text: str) -> str:
    """Plain text for Markdown: no markup, no HTML, no cell boundary."""
    escaped = text.replace("\\", "\\\\")
    for character in "|`*_[]":
        escaped = escaped.replace(character, "\\" + character)
    return html.escape(escaped, quote=False)
