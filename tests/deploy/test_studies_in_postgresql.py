"""Whole studies whose trials and whose MLflow are in PostgreSQL: two drivers of one, and another beside them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from calm_bench.atomic import is_temporary
from pipelines.app.running import run_and_report
from pipelines.store.store import Store
from pipelines.store.study_folder import study_folder
from pipelines.study.config import Execution, Study, Tracking
from pipelines.study.identity import study_identity
from pipelines.tracking.client import connect
from tests.deploy.conftest import PASSWORD, Server
from tests.faults.conftest import assert_nothing_is_left, finish, processes
from tests.faults.small_study import STUDY, begun, wait_for, worker_of, written_leaderboard

pytestmark = pytest.mark.slow

TOKENS = {**STUDY["model"], "kind": "token", "training": STUDY["model"]["training"] | {"num_steps": 60}}
SEEDS = {"name": "seed", "values": [0, 1]}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``calm-bench run --local`` on a study; what is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(study: Study, store: Store, **environment: str) -> subprocess.Popen[str]:
        file = tmp_path / f"{store.root.name}.yaml"
        file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
        program = "from pipelines.app.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, "run", str(file), "--local", "--store", str(store.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **environment},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def _ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


@pytest.mark.extended
def test_two_drivers_of_one_study_and_another_study_at_the_same_time(
    start: Callable[..., subprocess.Popen[str]],
    new_database: Callable[[], str],
    postgresql: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One driver is killed during a training; what it had asked is finished by the other, and nothing is done twice."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    others = processes()
    study = Study.model_validate(STUDY | {"model": TOKENS, "search": {"parameters": [SEEDS]}})
    other = study.model_copy(update={"name": "other", "tracking": Tracking()})
    shared, apart = Store(tmp_path / "shared"), Store(tmp_path / "apart")
    trials, mlflow = new_database(), new_database()

    first = start(study, shared, CALM_BENCH_OPTUNA_STORAGE=trials)
    folder = wait_for(lambda: begun(shared, "language_model"), "a language model has a checkpoint", 180, of=first)
    assert worker_of(shared, folder) == first.pid
    second = start(study, shared, CALM_BENCH_OPTUNA_STORAGE=trials)
    beside = start(other, apart, CALM_BENCH_OPTUNA_STORAGE=trials, MLFLOW_TRACKING_URI=mlflow)
    queued = f"SELECT count(*) FROM studies WHERE study_name = '{other.name}-{study_identity(other)}'"
    wait_for(
        lambda: postgresql.query(trials.rpartition("/")[2], queued) == [1], "both studies are there", 180, of=beside
    )  # type: ignore[arg-type]
    first.kill()
    first.communicate()
    said = _ended(second) + _ended(beside)

    database = trials.rpartition("/")[2]
    assert postgresql.query(database, "SELECT state::text FROM trials") == ["COMPLETE"] * 4
    assert not list(tmp_path.rglob("optuna.journal"))
    for drawn in filter(is_temporary, shared.root.glob("studies/*/.*")):
        # The killed driver may have been at its pictures: a run sweeps away what is a minute old.
        drawn.unlink()
    for place, description in ((shared, study), (apart, other)):
        assert_nothing_is_left(place, others)
        undisturbed = finish(description, Store(tmp_path / "journal"))
        assert written_leaderboard(place) == undisturbed.leaderboard

    # MLflow in PostgreSQL holds what sqlite holds, which is filled from the store.
    monkeypatch.setenv("CALM_BENCH_OPTUNA_STORAGE", trials)
    execution = Execution(backend="local", store=str(apart.root))
    run_and_report(other.model_copy(update={"execution": execution}), Console(file=io.StringIO()))
    in_sqlite = f"sqlite:///{apart.root / 'mlflow.db'}"
    for found, expected in zip(_contents(mlflow), _contents(in_sqlite), strict=True):
        assert found == expected
    assert len(_contents(mlflow)) == 3

    texts = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert any("postgresql://***@127.0.0.1" in text for text in [said, *texts])
    assert not any(PASSWORD in text or PASSWORD.replace("/", "%2F") in text for text in [said, *texts])


def _contents(uri: str) -> list[dict[str, Any]]:
    """All runs in MLflow with what does not say where or when they were written."""
    client = connect(uri)
    experiment = client.get_experiment_by_name("calm-bench")
    assert experiment is not None
    found = []
    for run in client.search_runs([experiment.experiment_id]):
        metrics = {
            name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            for name in sorted(run.data.metrics)
            if not name.startswith("system/")
        }
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("calm_bench.")}
        if run.data.tags.get("calm_bench.role") == "study":
            # How many samples of the machine were sent, and the fingerprint of files of which one, the report, has
            # links into an MLflow of its own.
            for name in ("calm_bench.samples", "calm_bench.leaderboard"):
                tags.pop(name, None)
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        found.append(
            {
                "name": run.info.run_name,
                "status": run.info.status,
                "params": run.data.params,
                "metrics": metrics,
                "tags": tags,
                "files": files,
            }
        )
    return sorted(found, key=lambda run: json.dumps(run["name"]))


def test_where_trials_are_kept_is_no_part_of_a_study(tmp_path: Path) -> None:
    here = Study.model_validate(STUDY)
    there = Study.model_validate(STUDY | {"execution": {"optuna_storage": "postgresql://host/db"}})
    assert study_identity(here) == study_identity(there)
    assert study_folder(here, Store(tmp_path)) == study_folder(there, Store(tmp_path))
