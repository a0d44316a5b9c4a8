"""An experiment that somebody deleted in MLflow's pages: what is said about it helps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.tracking.address import TrackingError
from pipelines.tracking.client import connect, experiment_id


@pytest.mark.slow
def test_it_is_restored_by_the_command_that_is_named(tmp_path: Path, empty_database: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = connect(uri)

    def found() -> str:
        return experiment_id(client, "calm-bench", uri, tmp_path / "mlartifacts")

    before = found()
    client.delete_experiment(before)
    with pytest.raises(TrackingError, match="was deleted in MLflow: restore it") as refused:
        found()
    named = re.search(r"\((\S+=\S+) (mlflow experiments restore .+)\), or name another \(tracking", str(refused.value))
    assert named is not None
    bin_folder = Path(sys.executable).parent
    shell = f"PATH={bin_folder}:$PATH {named[1]} {named[2]}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert found() == before
