"""What a finished stage gives to the row of its trial on the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field

from calm_bench.frozen import Frozen

if TYPE_CHECKING:
    from pipelines.study.stage import Stage

Form = Literal["text", "score", "flops", "count", "share", "duration", "whole", "setting"]
"""How a column shows its values: ``score`` with its error, ``flops`` as 1.31e13, ``count`` as 281M, ``share`` as a
percentage, ``duration`` as 2:05, ``whole`` as a whole number, ``setting`` as it was
set."""
Better = Literal["high", "low"]


class Measure(Frozen):
    """A number of a row that describes its own column, so that a leaderboard shows it wherever it is read."""

    model_config = ConfigDict(allow_inf_nan=False)

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
    """The name of its column, of its field in CSV, and of its metric in MLflow."""
    value: float
    standard_error: float | None = None
    heading: str = ""
    """The column's heading; empty means ``key``."""
    form: Form = "score"
    better: Better | None = None
    description: str = ""
    """One sentence for the caption of a table."""


@dataclass(frozen=True)
class FinishedStage:
    """A stage of a complete trial, with its result."""

    stage: Stage
    result: Mapping[str, Any]
    folder: Path | None
    """On this machine; of a remote store without weights and texts. None where it is not on record."""
    address: str
    """Where the store keeps the stage, for people: below its folder, or as an address of an object store."""
    trial: Mapping[str, Mapping[str, Any]]
    """The results of all stages of the trial, by kind."""


@dataclass(frozen=True)
class RowPart:
    """What one stage adds to its trial's row."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """By field of :class:`pipelines.results.entry.Entry`."""
    measures: tuple[Measure, ...] = ()
    """Numbers for which the row has no field: each becomes a column of its own."""
    training_flops: float = 0.0
    """Added to the row's total of training FLOPs."""
    wall_time_s: float = 0.0
    """Added to the row's total of training time."""
