"""A study whose best trials were trained again, read from MLflow: what its files say."""

from __future__ import annotations

import json
import shutil
import zlib
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.execution.local_executor import LocalExecutor
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.results.final_rows import rows_of
from pipelines.results.leaderboard import Leaderboard, load_board
from pipelines.search.drive import run_study
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Study
from pipelines.tracking.client import connect
from pipelines.tracking.rows import entries_from_mlflow, entry_in
from pipelines.tracking.views import CHARTS, TABLE

pytestmark = pytest.mark.slow

SEARCH = {
    "sampler": "random",
    "num_trials": 2,
    "split": "validation",
    "fixed": {"model.kind": "token"},
    "objectives": [{"metric": "validation_loss", "direction": "minimize"}],
    "parameters": [{"name": "model.training.learning_rate", "low": 1e-3, "high": 1e-2, "log": True}],
}


@pytest.fixture
def study(small_study: Callable[..., Study]) -> Study:
    return small_study(search=SEARCH, final={"seeds": [1, 2]}, samples={"num_prompts": 0}, benchmarks={})


def sync(store: Store, uri: str) -> str:
    """What the command says."""
    result = CliRunner().invoke(app, ["mlflow", "sync", "--store", str(store.root), "--uri", uri])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def roles_in_views(uri: str) -> list[list[str]]:
    """Of each saved view, the roles of the trials that it shows."""
    client = connect(uri)
    experiment = client.get_experiment_by_name("calm-bench")
    found: list[list[str]] = []
    for key in (TABLE, CHARTS):
        packed = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])["state"].removeprefix("deflate;")
        state = json.loads(zlib.decompress(b64decode(packed)))
        shown = client.search_runs([experiment.experiment_id], state["searchFilter"])
        rows = [entry_in(run.data.tags) for run in shown]
        found.append(sorted(row.role for row in rows if row is not None))
    return found


def test_mlflow_ranks_the_final_trials_with_what_finding_them_took(
    study: Study, empty_database: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    folder = study_folder(study, store)
    executor = LocalExecutor(store, "cpu")
    outcomes = run_study(study, store, executor)
    executor.close()
    database = tmp_path / "mlflow.db"
    shutil.copy(empty_database, database)
    uri = f"sqlite:///{database}"

    # Sent before the leaderboard is written, as while a study runs: nobody knows yet what the search took in all.
    assert "6 trials sent to sqlite:///" in sync(store, uri)
    assert [row.role for row in entries_from_mlflow(uri, "calm-bench")] == ["selected"] * 2 + ["untuned"] * 2

    # Its saved views show the final trials alone: the scores of the search are of validation text.
    assert roles_in_views(uri) == [["selected"] * 2 + ["untuned"] * 2] * 2

    write_leaderboard(Leaderboard(rows_of(outcomes, study)), folder)
    assert "2 of 6 trials sent to sqlite:///" in sync(store, uri)
    assert "6 trials already all in sqlite:///" in sync(store, uri)
    (folder / "report.html").write_text("<p>written after all else</p>")
    assert "6 trials already in sqlite:///" in (said := sync(store, uri))
    assert said.endswith("what else it holds of the study was brought up to date")
    assert roles_in_views(uri) == [["selected"] * 2 + ["untuned"] * 2] * 2
    client = connect(uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    # All of them are found again: none is there twice.
    assert len(client.search_runs(experiments)) == 1 + len(outcomes)
    board = load_board(folder)
    assert board is not None
    assert [measure.value for row in board for measure in row.measures if measure.key == "search_trials"] == [2.0, 2.0]
    assert Leaderboard(entries_from_mlflow(uri, "calm-bench")).to_json() == board.to_json()
    for form in (["--format", "csv"], ["--format", "md"], ["--headline"]):
        printed = [
            CliRunner().invoke(app, ["leaderboard", *form, *source]).output
            for source in (["--store", str(store.root)], ["--mlflow", uri])
        ]
        assert printed[0] == printed[1]
    assert "Tuning (2 trials," in " ".join(printed[0].split())


def test_mlflow_follows_a_study_that_is_edited(
    small_study: Callable[..., Study], empty_database: Path, tmp_path: Path
) -> None:
    """Other seeds, fewer selected, a longer search, no final trials at all: rows, state and settings are those of the
    files each time, and what was there before comes back as it was."""
    store = Store(tmp_path / "store")
    store.root.mkdir()
    database = store.root / "mlflow.db"
    shutil.copy(empty_database, database)
    uri, client = f"sqlite:///{database}", connect(f"sqlite:///{database}")
    boards: list[str] = []

    def told(num_trials: int, **final: Any) -> str:
        """The study's state, once the files of a run are in MLflow."""
        wanted = {"final": final} if final else {}
        search = SEARCH | {"num_trials": num_trials}
        study = small_study(search=search, samples={"num_prompts": 0}, benchmarks={}, **wanted)
        executor = LocalExecutor(store, "cpu")
        outcomes = run_study(study, store, executor)
        executor.close()
        folder = study_folder(study, store)
        write_leaderboard(Leaderboard(rows_of(outcomes, study)), folder)
        sync(store, uri)
        board = load_board(folder)
        assert board is not None
        boards.append(board.to_json())
        assert Leaderboard(entries_from_mlflow(uri, "calm-bench")).to_json() == boards[-1]
        (run,) = (run for run in all_runs(client) if run.data.tags["calm_bench.role"] == "study")
        kept = yaml.safe_load(Path(client.download_artifacts(run.info.run_id, "study.yaml")).read_text())
        assert (kept["search"]["num_trials"], kept.get("final", {}).get("seeds")) == (num_trials, final.get("seeds"))
        settings = run.data.tags | run.data.params
        assert settings["search.num_trials"] == str(num_trials)
        assert settings.get("final.seeds") == (json.dumps(final["seeds"]) if final else None)
        assert "search.num_trials" not in run.data.params, "MLflow changes no parameter"
        return str(run.info.status)

    assert told(2, seeds=[1, 2], top=2) == "FINISHED"
    assert told(2, seeds=[1]) == "FINISHED"
    assert told(3, seeds=[2]) == "FINISHED"
    assert told(3) == "FINISHED"
    # No more than three can be selected.
    assert told(3, seeds=[1], top=5) == "FINISHED"
    assert told(3, seeds=[2]) == "FINISHED"
    assert boards[5] == boards[2]
    keys = [run.data.tags["calm_bench.trial"] for run in all_runs(client) if "calm_bench.trial" in run.data.tags]
    assert len(set(keys)) == len(keys), "a trial that the study has again has its run again"


def all_runs(client: MlflowClient) -> list[Run]:
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))
