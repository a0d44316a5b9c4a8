"""Rows that were trained in unlike arithmetic, in words."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.results.entry import Entry


def unlike_arithmetic(entries: Iterable[Entry]) -> str:
    """That rows differ in number format or kind of device too; empty where they do not."""
    found = sorted({entry.arithmetic for entry in entries if entry.arithmetic})
    if len(found) < 2:
        return ""
    return (
        f"Rows are trained in unlike arithmetic ({', '.join(found)}), which is a part of what differs between them; "
        "seeds are pooled where it is the same. model.training.precision=fp32 or bf16 makes one of it."
    )
