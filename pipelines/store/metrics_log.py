"""The file ``metrics.jsonl`` of a stage: one line for each logged step of a training, and of its validations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.study.stage_folder import METRICS_FILE


@dataclass(frozen=True)
class Line:
    """One line of a stage's ``metrics.jsonl``; ``time`` is in seconds since the stage's start."""

    kind: str
    split: str
    step: int
    flops: float
    time: float
    metrics: Mapping[str, float]


def line_from(kind: str, row: Mapping[str, Any]) -> Line:
    """The line that a stage of ``kind`` wrote as ``row``."""
    return Line(kind, row["split"], int(row["step"]), float(row.get("flops", 0.0)), float(row["time"]), row["metrics"])


def read_lines(kind: str, folder: Path) -> list[Line]:
    """All whole lines of ``folder/metrics.jsonl``; none where a stage has no such file."""
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    return [line_from(kind, json.loads(text)) for text in path.read_text("utf-8").split("\n") if text.endswith("}")]
