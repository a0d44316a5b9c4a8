"""``mlflow.json`` in a study's folder: where its runs are in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.atomic import write_json

if TYPE_CHECKING:
    from pipelines.tracking.runs import StudyRuns

FILE = "mlflow.json"


def write_record(folder: Path, address: str, runs: StudyRuns) -> None:
    """Write it, unless it says the same already.

    Args:
        address: of MLflow, without credentials.
    """
    record = {
        "address": address,
        "experiment_id": runs.experiment_id,
        "parent_run_id": runs.parent_id,
        "runs": {str(number): run_id for number, run_id in sorted(runs.children.items())},
    }
    path = folder / FILE
    try:
        if json.loads(path.read_text(encoding="utf-8")) == record:
            return
    except (FileNotFoundError, ValueError):
        pass
    write_json(path, record)
