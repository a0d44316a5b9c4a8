"""A store that was moved: MLflow's files stay inside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calm_bench.kept_folders import FolderGone, keeping
from pipelines.app.cli import app
from pipelines.execution.events import TrialFinished
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.address import TrackingError, own_database, sqlite_path
from pipelines.tracking.client import connect, experiment_id
from pipelines.tracking.sync import StudySync, sync_study
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


@pytest.mark.parametrize("name", ["my store", "a#1", "what?", "100%41", "a&b=c;d", "数 ü"])
def test_a_store_whose_name_means_something_in_an_address(name: str, empty_database: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / name
    before.mkdir()
    shutil.copy(empty_database, before / "mlflow.db")
    uri = own_database(before)
    experiment_id(connect(uri), "mine", uri, before / "mlartifacts")
    before.rename(after)
    uri = own_database(after)
    assert sqlite_path(uri) == after / "mlflow.db"
    with pytest.raises(TrackingError, match="moved here from"):
        experiment_id(connect(uri), "mine", uri, after / "mlartifacts")
    client = connect(uri)
    made = experiment_id(client, "another", uri, after / "mlartifacts")
    assert experiment_id(client, "another", uri, after / "mlartifacts") == made, "it has not been moved"
    run = client.create_run(made).info.run_id
    client.log_text(run, "a result", "result.txt")
    assert [path.read_text() for path in after.rglob("result.txt")] == ["a result"]
    assert list(tmp_path.iterdir()) == [after], "nothing beside it"


def test_a_link_at_the_old_place_leads_here(empty_database: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.copy(empty_database, before / "mlflow.db")
    uri = own_database(before)
    made = experiment_id(connect(uri), "mine", uri, before / "mlartifacts")
    before.rename(after)
    before.symlink_to(after)
    uri = own_database(after)
    assert experiment_id(connect(uri), "mine", uri, after / "mlartifacts") == made


def test_a_database_that_was_named_in_the_store_by_its_old_place(
    make_outcome: Callable[..., TrialOutcome], empty_database: Path, tmp_path: Path
) -> None:
    """``tracking.uri`` of the study names the folder that is gone; to connect would make it again."""
    before, after = tmp_path / "be fore", tmp_path / "af ter"
    study = Study(name="k-ablation", tracking={"uri": f"sqlite:///{before / 'runs.db'}"})
    outcome = make_outcome(study, 0, "token", {"model.kind": "token"}, range(3))
    StudyWriter(before, study, "5f" * 8).write(TrialFinished(outcome))
    (tmp_path / "stages").rename(before / "stages")
    shutil.copy(empty_database, before / "runs.db")
    sent = sync(before)
    assert sent.exit_code == 0, sent.output
    before.rename(after)
    (folder,) = (after / "studies").iterdir()
    told = f"mlflow sync --anew --store '{after}' makes it again"
    assert told in str(sync_study(Store(after), folder).problem)
    with pytest.raises(TrackingError, match=re.escape(told)):
        StudySync(Store(after), folder, f"sqlite:///{before / 'runs.db'}", "calm-bench").sync("at work", print)
    # What that command calls, once it has set a database aside; its tables take seconds to create.
    shutil.copy(empty_database, after / "mlflow.db")
    made = sync_study(Store(after), folder, anew=True)
    assert (made.problem, made.trials, made.address) == (None, 1, own_database(after))
    assert told in str(sync_study(Store(after), folder).problem), "the study's own setting names the old place still"
    assert not before.exists()


def test_of_a_store_that_is_moved_meanwhile_no_database_is_made_at_the_old_place(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "studies").mkdir(parents=True)
    with keeping(store, "studies"):
        store.rename(tmp_path / "moved")
        with pytest.raises(FolderGone, match=rf"moved to {tmp_path}/moved"):
            connect(f"sqlite:///{store}/mlflow.db")
    assert not store.exists()
