"""The leaderboard as one small HTML page: tables that sort by a click or a key, and need nothing else."""

from __future__ import annotations

import math
from html import escape

from pipelines.report.tables import EMPTY, caption, mark, several_protocols, shown_columns
from pipelines.results.columns import Column
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.view import View

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 1.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8886; }
.text { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; outline-offset: 3px; }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
p { max-width: 60rem; opacity: .8; }
"""
_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const first = head.dataset.first;
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : first === "descending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.value;
    const isText = head.classList.contains("text");
    const rows = [...body.rows].sort((a, b) => {
      const one = value(a), other = value(b);
      if (one === "" || other === "") return (one === "") - (other === "");
      const order = isText ? one.localeCompare(other) : one - other;
      return down ? -order : order;
    });
    body.append(...rows);
  }));
}
"""


def html_page(leaderboard: Leaderboard, view: View | None = None) -> str:
    """A self-contained page that opens offline; every text from outside is escaped."""
    view = view or View()
    blocks = [] if leaderboard.groups else [f"<p>{escape(EMPTY)}</p>"]
    for group in leaderboard.groups:
        columns = shown_columns(group, view)
        fronts = view.fronts(group)
        heads = "".join([_head("#", "ascending", False), *(_column_head(column) for column in columns)])
        rows = []
        for rank, entry in view.order(group):
            cells = "".join(_cell(column, entry, mark(column, entry, fronts)) for column in columns)
            rows.append(f'<tr><td data-value="{rank}">{rank}</td>{cells}</tr>')
        blocks.append(
            f'<div class="scroll" tabindex="0" role="region" aria-label="Leaderboard, protocol '
            f'{escape(group.protocol_hash)}"><table><thead><tr>{heads}</tr></thead><tbody>\n'
            + "\n".join(rows)
            + f"\n</tbody></table></div>\n<p>{escape(caption(group, view))}</p>"
        )
    if len(leaderboard.groups) > 1:
        blocks.append(f"<p>{escape(several_protocols(leaderboard))}</p>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>calm-bench leaderboard</title><style>{_STYLE}</style></head><body>\n<h1>Leaderboard</h1>\n"
        + "\n".join(blocks)
        + f"\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _column_head(column: Column) -> str:
    first = "descending" if column.better == "high" else "ascending"
    return _head(column.title, first, column.justify == "left" or column.key == "seeds")


def _head(title: str, first: str, is_text: bool) -> str:
    kind = ' class="text"' if is_text else ""
    return f'<th scope="col" data-first="{first}"{kind}><button type="button">{escape(title)}</button></th>'


def _cell(column: Column, entry: Entry, marked: str) -> str:
    value = column.value(entry)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        value = ""
    kind = ' class="text"' if column.justify == "left" else ""
    return f'<td{kind} data-value="{escape(str(value))}">{escape(column.cell(entry) + marked)}</td>'
