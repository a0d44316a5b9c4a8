"""Estimate against outcome, as planning left it in a study's folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.common.numbers import MISSING, duration
from pipelines.report.data import Expected
from pipelines.report.environment import STAGE_WORDS

ESTIMATE = "estimate.json"


def estimates_of(document: Any) -> list[Expected]:
    """The total and the kinds of stages in ``estimate.json``; nothing where there is none, or one of another form."""
    return list(_read(document)) if isinstance(document, dict) else []


def _read(document: dict[str, Any]) -> Iterator[Expected]:
    kinds = document.get("kinds")
    named = {"total": document.get("total"), **(kinds if isinstance(kinds, dict) else {})}
    for kind, found in named.items():
        if isinstance(found, dict):
            estimated, measured = found.get("estimated_s"), found.get("measured_s")
            if isinstance(estimated, int | float) and isinstance(measured, int | float):
                yield Expected(str(kind), float(estimated), float(measured), _cells(str(kind), estimated, measured))


def _cells(kind: str, estimated: float, measured: float) -> list[str]:
    if kind != "total" and max(estimated, measured) < 1:
        return []
    error = f"{100 * (estimated / measured - 1):+.0f} %".replace("-", "−") if measured > 0 else MISSING  # noqa: RUF001
    name = "In all" if kind == "total" else STAGE_WORDS.get(kind, kind)
    return [name, duration(estimated), duration(measured), error]
