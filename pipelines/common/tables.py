"""Rows for people and for programs: the table that every command prints, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.common.sanitize import without_controls

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2
"""Characters between two columns."""


def plain_table(title: str = "") -> Table:
    """A table without columns: a line below its head, no frame."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    return Table(
        title=Text(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0),
        show_edge=False,
        pad_edge=False,
        header_style="bold",
    )


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], is_for_programs: bool = False) -> str:
    """``rows`` as CSV with a header; a row has nothing in the columns that it lacks.

    Unless programs alone read it, what a spreadsheet would run as a formula is quoted by an apostrophe, in names of
    columns too, and what would steer a terminal is replaced.

    Raises:
        ValueError: a row has a column that is not among ``columns``.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    kept: Callable[[Any], Any] = (lambda value: value) if is_for_programs else _harmless
    writer.writerow({name: kept(name) for name in columns})
    writer.writerows({name: kept(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = without_controls(value)
    return "'" + text if value[:1] in ("=", "+", "-", "@", "\t", "\r") else text
