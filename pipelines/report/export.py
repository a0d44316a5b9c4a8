"""A view of the leaderboard as plain records: for CSV, for JSON, for programs."""

from __future__ import annotations

import json
from typing import Any

from pipelines.common.tables import csv_text
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.view import View


def records(leaderboard: Leaderboard, view: View) -> list[dict[str, Any]]:
    """A dict a row: rank, protocol, the columns shown, ``<column>_se`` behind those that have errors.

    Scores are on the scale of the table. ``on_front`` says whether the row is on the front that was asked for, or on
    that of BrierLM against all training FLOPs.
    """
    found = []
    for group in leaderboard.groups:
        columns = view.shown_columns(group)
        front = next(iter(view.fronts(group).values()))
        with_errors = {
            column.key for column in columns if any(column.error(entry) is not None for entry in group.entries)
        }
        for rank, entry in view.order(group):
            row: dict[str, Any] = {"rank": rank, "protocol_hash": group.protocol_hash}
            for column in columns:
                row[column.key] = column.value(entry)
                if column.key in with_errors:
                    row[f"{column.key}_se"] = column.error(entry)
            found.append(row | {"on_front": entry in front})
    return found


def records_json(leaderboard: Leaderboard, view: View) -> str:
    """:func:`records` as a JSON list."""
    return json.dumps(records(leaderboard, view), indent=2, ensure_ascii=False) + "\n"


def records_csv(leaderboard: Leaderboard, view: View) -> str:
    """:func:`records` as CSV."""
    rows = records(leaderboard, view)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text(rows, names)
