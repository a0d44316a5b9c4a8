"""A study whose best trials were trained again, read from MLflow: what its files say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
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
from pipelines.tracking.rows import entries_from_mlflow
from pipelines.tracking.sync import sync_study

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
    assert sync_study(store, folder, uri).problem is None
    assert [row.role for row in entries_from_mlflow(uri, "calm-bench")] == ["selected"] * 2 + ["untuned"] * 2

    write_leaderboard(Leaderboard(rows_of(outcomes, study)), folder)
    assert sync_study(store, folder, uri).problem is None
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
