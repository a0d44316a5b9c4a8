"""Estimate against outcome, as planning left it in a study's folder."""

from __future__ import annotations

from pathlib import Path

from pipelines.common.numbers import MISSING, duration
from pipelines.common.record_file import RecordError
from pipelines.report.data import Expected
from pipelines.store.estimate_record import ComparedTime, EstimateRecord
from pipelines.study.stage_kind import heading_of


def estimates_of(folder: Path) -> list[Expected]:
    """The total and the kinds of stages in the study's ``folder``; nothing where none of this form is kept."""
    try:
        found = EstimateRecord.load(folder)
    except RecordError:
        # The rest of a report does not depend on it.
        return []
    named = {} if found is None else {"total": found.total, **found.kinds}
    return [Expected(kind, time.estimated_s, time.measured_s, _cells(kind, time)) for kind, time in named.items()]


def _cells(kind: str, time: ComparedTime) -> list[str]:
    estimated, measured = time.estimated_s, time.measured_s
    if kind != "total" and max(estimated, measured) < 1:
        return []
    error = MISSING
    if time.error is not None:
        percent = round(100 * time.error)
        error = f"{abs(percent)} % too {'high' if percent > 0 else 'low'}" if percent else "as estimated"
    name = "In all" if kind == "total" else heading_of(kind)
    foreseen = MISSING if time.not_estimated == time.count else duration(estimated)
    return [name, foreseen, duration(measured), error]
