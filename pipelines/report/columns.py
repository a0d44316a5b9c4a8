"""The leaderboard's columns as the page shows them, and a row's values in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.common.numbers import typeset
from pipelines.common.sanitize import sanitize_label
from pipelines.report.curves import rounded
from pipelines.report.data import Column, Number
from pipelines.results import column as results_column
from pipelines.results import columns as catalogue
from pipelines.results.entry import Entry

LONGEST_LABEL = 200
_DIGITS = 6
_LOGARITHMIC = frozenset({"flops", "count", "duration", "whole"})
"""Forms of numbers whose axes are logarithmic: of sizes and costs."""


def page_columns(entries: Sequence[Entry]) -> list[results_column.Column]:
    """The columns of the catalogue that stand on the page: those in which some row has a value."""
    return [
        column
        for column in catalogue.catalogue(entries)
        if column.page is not None and any(column.value(entry) is not None for entry in entries)
    ]


def columns_for(entries: Sequence[Entry]) -> list[Column]:
    """:func:`page_columns` as data; those that all rows share alike are left for the reader to ask for."""
    return [_column(column, entries) for column in page_columns(entries)]


def values_of(entry: Entry, columns: Iterable[results_column.Column]) -> dict[str, Number | str]:
    """The values of ``entry`` by column and by column of errors, on the scale that the page shows."""
    values: dict[str, Number | str] = {}
    for column in columns:
        value, error = column.value(entry), column.error(entry)
        if column.is_text:
            values[column.key] = sanitize_label(str(value or ""), LONGEST_LABEL)
        else:
            # An axis of shares goes from 0 to 1.
            scale = 0.01 if column.form == "share" else 1.0
            values[column.key] = None if value is None else rounded(scale * float(value), _DIGITS)
        if error is not None:
            values[f"{column.key}_se"] = rounded(error, _DIGITS)
    return values


def texts_of(entry: Entry, columns: Iterable[results_column.Column]) -> dict[str, str]:
    """The cells of ``entry`` by column as the page prints them, scores with their errors."""
    return {column.key: _cell(column, entry) for column in columns}


def _cell(column: results_column.Column, entry: Entry) -> str:
    cell = column.cell(entry)
    return sanitize_label(cell, LONGEST_LABEL) if column.is_text else typeset(cell)


def _column(column: results_column.Column, entries: Iterable[Entry]) -> Column:
    has_errors = any(column.error(entry) is not None for entry in entries)
    return Column(
        column.key,
        sanitize_label(column.name or column.title, LONGEST_LABEL),
        column.unit,
        error=f"{column.key}_se" if has_errors else None,
        better=column.better,
        log=column.form in _LOGARITHMIC,
        form=column.form,
        shown=column.page == "usual" or (column.page == "differing" and catalogue.differs(column, entries)),
        axis=not column.is_text,
    )
