"""The leaderboard as LaTeX tables, for papers."""

from __future__ import annotations

import re

from pipelines.report.tables import EMPTY, caption, mark, shown_columns
from pipelines.results.leaderboard import Group, Leaderboard
from pipelines.results.view import View

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_EXPONENT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e(-?\d+)\b")


def latex(leaderboard: Leaderboard, view: View | None = None) -> str:
    """One ``table`` a protocol with its caption; needs the package booktabs.

    Cells are those of the other tables: errors with two significant digits, FLOPs with an exponent.
    """
    view = view or View()
    if not leaderboard.groups:
        return f"% {EMPTY}\n"
    return "\n".join(_table(group, view) for group in leaderboard.groups)


def _table(group: Group, view: View) -> str:
    columns = shown_columns(group, view)
    fronts = view.fronts(group)
    head = " & ".join(["\\#", *(escape(column.title) for column in columns)])
    rows = [
        " & ".join([str(rank), *(_cell(column.cell(entry) + mark(column, entry, fronts)) for column in columns)])
        for rank, entry in view.order(group)
    ]
    form = "r" + "".join("l" if column.justify == "left" else "r" for column in columns)
    return "\n".join(
        [
            "\\begin{table}",
            f"\\caption{{{_cell(caption(group, view))}}}",
            f"\\begin{{tabular}}{{{form}}}",
            "\\toprule",
            f"{head} \\\\",
            "\\midrule",
            *(f"{row} \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """``text`` as LaTeX prints it, whatever characters it holds."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _cell(text: str) -> str:
    """A cell or a sentence with its numbers set as mathematics."""
    shown = _EXPONENT.sub(r"$\1\\times10^{\2}$", escape(text))
    return shown.replace("±", r"$\pm$").replace("–", "--").replace("−", "$-$")  # noqa: RUF001
