"""The file ``mlflow.json`` of a study: where its runs are in MLflow."""

from __future__ import annotations

from pathlib import Path

from calm_bench.atomic import write_json
from calm_bench.frozen import Frozen
from pipelines.common.record_file import read_object, validated

MLFLOW_FILE = "mlflow.json"
_REMEDY = "remove it; calm-bench mlflow sync writes it anew"


class MlflowRecord(Frozen):
    """The runs of a study by MLflow's names of them."""

    address: str | None = None
    """Address of MLflow, without credentials: a server's, or that of a database."""
    experiment_id: str
    parent_run_id: str
    """Run of the study."""
    runs: dict[str, str]
    """Runs of its trials by their numbers."""

    @classmethod
    def load(cls, folder: Path) -> MlflowRecord | None:
        """What the study in ``folder`` keeps; None where it is not in MLflow.

        Raises:
            RecordError: the file is damaged, or a newer version wrote it.
        """
        path = folder / MLFLOW_FILE
        try:
            return validated(cls, read_object(path, _REMEDY), path, _REMEDY)
        except FileNotFoundError:
            return None

    def save(self, folder: Path) -> None:
        """Keep it in the study's ``folder``."""
        write_json(folder / MLFLOW_FILE, self.model_dump())
