"""The files ``plan.json`` and ``estimate.json`` of a study: what a run was expected to take, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from calm_bench.atomic import write_json
from calm_bench.frozen import Frozen
from pipelines.common.record_file import RecordError, read_object, validated

PLAN_FILE = "plan.json"
ESTIMATE_FILE = "estimate.json"
_REMEDY = "remove it; the study's next run that trains anything writes it anew"


class ComparedTime(Frozen):
    """The time of some stages, estimated before they ran and measured."""

    count: int
    estimated_s: float
    """Seconds."""
    measured_s: float
    """Seconds."""
    error: float | None = None
    """Estimated over measured, less one; None where the two are not of the same work, or nothing was measured."""
    not_estimated: Annotated[int, Field(ge=0, exclude_if=lambda count: count == 0)] = 0
    """Stages whose time was not known before, and is in ``measured_s`` alone."""


class StageTime(Frozen):
    """The time of one stage."""

    kind: str
    label: str
    estimated_s: float | None
    measured_s: float


class EstimateRecord(Frozen):
    """Estimate against outcome of a study's last run that ran anything."""

    machine: dict[str, Any]
    calibrated: Any = None
    total: ComparedTime
    kinds: dict[str, ComparedTime]
    stages: dict[str, StageTime]
    """By identity."""

    @classmethod
    def load(cls, folder: Path) -> EstimateRecord | None:
        """What the study in ``folder`` keeps; None where nothing was compared.

        Raises:
            RecordError: the file is damaged, or a newer version wrote it.
        """
        path = folder / ESTIMATE_FILE
        try:
            return validated(cls, read_object(path, _REMEDY), path, _REMEDY)
        except FileNotFoundError:
            return None

    def save(self, folder: Path) -> None:
        """Keep it in the study's ``folder``."""
        write_json(folder / ESTIMATE_FILE, self.model_dump())


def save_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Keep the plan of a run that begins, with its estimates, in the study's ``folder``."""
    write_json(folder / PLAN_FILE, plan)


def planned_seconds(folder: Path) -> dict[str, float]:
    """Seconds of stages by identity as the plan in a study's ``folder`` expects them.

    Empty where there is no plan, or none that can be read: it makes an estimate poorer, and must do no more.
    """
    try:
        stages = read_object(folder / PLAN_FILE, _REMEDY)["estimates"][0]["stages"]
        return {identity: float(stage["seconds"]) for identity, stage in stages.items() if stage["seconds"] is not None}
    except (OSError, RecordError, ValueError, LookupError, TypeError, AttributeError):
        return {}
