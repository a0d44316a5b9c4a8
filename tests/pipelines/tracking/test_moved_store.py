"""A store that was moved: MLflow's files stay inside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.execution.events import TrialFinished
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.address import TrackingError
from pipelines.tracking.client import connect, experiment_id
from tests.pipelines.tracking.conftest import StudyWriter


def sync(store: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["mlflow", "sync", "--store", str(store), *options], env={"COLUMNS": "400"})


def sync_apart(store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: MLflow keeps a database open for as long as its process lives."""
    program = "from pipelines.app.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "mlflow", "sync", "--store", str(store), *options],
        env=os.environ | {"COLUMNS": "400"},
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.slow
def test_a_moved_store_says_how_its_database_is_made_again(
    make_outcome: Callable[..., TrialOutcome], empty_database: Path, tmp_path: Path
) -> None:
    study = Study(name="k-ablation")
    outcome = make_outcome(study, 0, "token", {"model.kind": "token"}, range(3))
    before, after = tmp_path / "before", tmp_path / "after"
    StudyWriter(before, study, "5f" * 8).write(TrialFinished(outcome))
    (tmp_path / "stages").rename(before / "stages")
    shutil.copy(empty_database, before / "mlflow.db")
    assert sync(before).exit_code == 0
    before.rename(after)

    refused = sync_apart(after)
    told = " ".join((refused.stdout + refused.stderr).split())
    assert refused.returncode == 1, told
    assert f"moved here from {before}" in told
    assert f"calm-bench mlflow sync --anew --store {after}" in told
    assert not before.exists()

    made = sync_apart(after, "--anew")
    assert made.returncode == 0, made.stderr
    assert not before.exists()
    assert (after / "mlflow.before-1.db").is_file()
    client = connect(f"sqlite:///{after / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("calm-bench")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(after)
        assert client.list_artifacts(run.info.run_id)
    assert "already all in" in sync(after).output


@pytest.mark.parametrize(("before", "after"), [("a/runs", "a"), ("a", "a/runs"), ("a", "b")])
def test_stores_that_were_moved_up_down_or_beside(
    before: str, after: str, empty_database: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / before, tmp_path / after
    for store in (old, new):
        store.mkdir(parents=True, exist_ok=True)
    shutil.copy(empty_database, old / "mlflow.db")
    uri = f"sqlite:///{old / 'mlflow.db'}"
    made = experiment_id(connect(uri), "mine", uri, old / "mlartifacts")
    assert experiment_id(connect(uri), "mine", uri, old / "mlartifacts") == made
    shutil.copy(old / "mlflow.db", new / "mlflow.db")
    uri = f"sqlite:///{new / 'mlflow.db'}"
    with pytest.raises(TrackingError, match=rf"moved here from {old}, .* sync --anew --store {new} "):
        experiment_id(connect(uri), "mine", uri, new / "mlartifacts")
