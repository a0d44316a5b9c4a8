"""The leaderboard as LaTeX tables, for papers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipelines.report.captions import caption
from pipelines.report.tables import EMPTY, mark
from pipelines.results.leaderboard import Group, Leaderboard
from pipelines.results.view import View

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
COLUMN_CHARACTERS = 52
"""About what a line of small print holds in a column of a page of two."""
_EXPONENT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e(-?\d+)\b")


def latex(leaderboard: Leaderboard, view: View | None = None) -> str:
    """One ``table`` a protocol with its caption, or ``table*``, as wide as the page, where it does not fit a column of
    two; needs the package booktabs.

    Cells are those of the other tables: errors with two significant digits, FLOPs with an exponent.
    """
    view = view or View()
    if not leaderboard.groups:
        return f"% {EMPTY}\n"
    return "\n".join(_table(group, view) for group in leaderboard.groups)


def _table(group: Group, view: View) -> str:
    columns = view.shown_columns(group)
    fronts = view.fronts(group)
    rows = [
        [str(rank), *(column.cell(entry) + mark(column, entry, fronts) for column in columns)]
        for rank, entry in view.order(group)
    ]
    head = ["#", *(column.heading for column in columns)]
    width = sum(_widest(cells) + 1 for cells in zip(head, *rows, strict=True))
    environment = "table" if width <= COLUMN_CHARACTERS else "table*"
    form = ["r", *("l" if column.justify == "left" else "r" for column in columns)]
    return "\n".join(
        [
            f"\\begin{{{environment}}}",
            f"\\caption{{{_cell(caption(group, view))}}}",
            "\\centering\\footnotesize\\setlength{\\tabcolsep}{2.5pt}",
            f"\\begin{{tabular}}{{{''.join(form)}}}",
            "\\toprule",
            " & ".join(map(_heading, head, form)) + " \\\\",
            "\\midrule",
            *(" & ".join(map(_cell, row)) + " \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            f"\\end{{{environment}}}",
            "",
        ]
    )


def _widest(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))


def _heading(text: str, side: str) -> str:
    """A heading on as many lines as narrow tables have."""
    lines = [_cell(line) for line in text.split("\n")]
    if len(lines) == 1:
        return lines[0]
    # Not \shortstack, whose lines stand apart by their own heights.
    return f"\\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}" + r"\\".join(lines) + r"\end{tabular}"


def escape(text: str) -> str:
    """``text`` as LaTeX prints it, whatever characters it holds."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _cell(text: str) -> str:
    """A cell or a sentence with its numbers set as mathematics."""
    shown = _EXPONENT.sub(r"$\1{\\times}10^{\2}$", escape(text))
    return shown.replace("±", r"$\pm$").replace("–", "--").replace("−", "$-$")  # noqa: RUF001
