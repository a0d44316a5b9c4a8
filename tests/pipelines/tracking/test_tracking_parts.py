from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from evals.task_score import TaskScore
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.store.provenance import GitState, ProvenanceRecord
from pipelines.study.config import Study
from pipelines.tracking.address import TrackingError
from pipelines.tracking.client import connect
from pipelines.tracking.description import LONGEST, study_note, trial_note
from pipelines.tracking.rows import entries_from_mlflow, entry_in, entry_tags
from pipelines.tracking.servers import free_port
from pipelines.tracking.system_metrics import SystemLog
from pipelines.tracking.tags import ENTRY
from pipelines.tracking.times import StageFolders, trial_end, trial_start

STUDY = Study(name="k-ablation", description="Chunk sizes compared, by http://me:secret@host/.")


def line(step: int, value: float = 1.0) -> str:
    row = {"step": step, "split": "train", "flops": 0.0, "time": float(step), "metrics": {"loss": value}}
    return json.dumps(row) + "\n"


def test_times_come_from_the_files(tmp_path: Path) -> None:
    training = StageFolders.in_store(tmp_path, "language_model", "ab")
    score = StageFolders.in_store(tmp_path, "evaluation", "cd")
    stages = {"language_model": training, "evaluation": score}
    assert trial_start(stages, 0) is None
    training.work.mkdir(parents=True)
    (training.work / "attempts.jsonl").write_text('{"started": 100.5}\n{"started": 200.0}\n{"star')
    (training.work / "metrics.jsonl").write_text(line(7))
    assert (training.start(), training.end()) == (100_500, 200_000)
    assert trial_start(stages, 0) == 100_500
    # A model of an earlier study is not older than the study that shows it.
    assert trial_start(stages, 150_000) == 150_000
    training.finished.mkdir(parents=True)
    attempts = [{"started": 100.5}, {"started": 200.0}]
    (training.finished / "provenance.json").write_text(json.dumps({"attempts": attempts, "wall_time_s": 30.0}))
    assert (training.start(), training.end()) == (100_500, 230_000)
    assert trial_end(stages, 100_500) == 230_000
    assert trial_end(stages, 300_000) == 300_000


def test_samples_outlast_the_process(tmp_path: Path) -> None:
    log = SystemLog(tmp_path / "study")
    assert log.start() is None
    assert list(log.samples()) == []
    log.begin(1000)
    log.add(2000, {"cpu": 1 / 3})
    other = SystemLog(tmp_path / "study")
    other.begin(5000)
    assert other.start() == 1000
    assert [(sample.time, dict(sample.values)) for sample in other.samples()] == [
        (1000, {}),
        (2000, {"system/cpu": 0.333333}),
    ]
    # Another machine went on.
    with (tmp_path / "study" / "system.jsonl").open("a") as file:
        file.write('{"time": 4000, "host": "elsewhere", "values": {"cpu": 2.0}}\nhalf a li')
    assert [dict(sample.values) for sample in other.samples()][2:] == [{"system/elsewhere/cpu": 2.0}]


def test_a_row_of_any_length_comes_back_from_its_tags(make_entry: Callable[..., Entry]) -> None:
    task = {"metric": "acc", "value": 0.1, "standard_error": 0.03, "monte_carlo_error": None, "num_documents": 9}
    task |= {"num_samples": 64, "scorer": "exact", "protocol_hash": "ab"}
    long = make_entry(label="é'\"" * 50, tasks=tuple(TaskScore(task=f"task_{n}", **task) for n in range(60)))
    tags = entry_tags(long)
    assert len(tags) > 2
    assert all(len(value) <= 5000 for value in tags.values())
    assert entry_in(tags) == long
    # A shorter row leaves the end of a longer one behind.
    short = make_entry()
    assert entry_in(tags | entry_tags(short)) == short
    assert entry_in({}) is None
    with pytest.raises(ValueError, match=r"."):
        entry_in({ENTRY: tags[ENTRY]})


def test_a_description_fits_whatever_the_study(make_entry: Callable[..., Entry], ablation: list[Entry]) -> None:
    git = GitState(commit="ab" * 20, modified=True)
    provenance = ProvenanceRecord(versions={"calm-bench": "0.1.0", "torch": "2.13"}, git=git)
    note = study_note(STUDY, Leaderboard(ablation), provenance)
    assert note.startswith("Chunk sizes compared, by http://***@host/.")
    assert note.count("| K=") == 4
    assert "calm-bench run study.yaml" in note
    assert "commit abababababab with changes" in note
    assert "artifact" in note
    many = Leaderboard(make_entry(trial=n, label=f"a point {n}", brierlm=50.0 - n / 10) for n in range(400))
    cut = study_note(STUDY, many, ProvenanceRecord())
    assert len(cut) <= LONGEST
    assert "of 400 rows; the artifact `leaderboard.md` has all" in cut
    assert "a point 0" in cut.replace("\\", "")
    assert "**BrierLM 10.87±0.27** on 412 documents" in trial_note(make_entry())


def test_an_absent_server_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrackingError, match="no server answers"):
        connect(f"http://127.0.0.1:{free_port(0)}")


def test_a_silent_database_is_asked_once() -> None:
    """MLflow itself would try fifteen times, with pauses that double."""
    pytest.importorskip("psycopg")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"postgresql://me:secret@127.0.0.1:{server.getsockname()[1]}/runs?connect_timeout=2"
        with pytest.raises(sqlalchemy.exc.OperationalError, match="timeout"):
            connect(address)


def test_rows_that_began_in_one_millisecond_come_by_trial(
    empty_database: Path, make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    """MLflow orders equal times by the runs' random names."""
    database = shutil.copy(empty_database, tmp_path / "mlflow.db")
    client = connect(uri := f"sqlite:///{database}")
    experiment = client.create_experiment("calm-bench")
    for begun, trial in [(2, 0), *((1, trial) for trial in (4, 11, 2, 9, 1, 7))]:
        row = make_entry(trial=trial, study="later" if begun == 2 else "earlier")
        client.create_run(experiment, start_time=begun, tags={"calm_bench.role": "trial", **entry_tags(row)})
    found = [(row.study, row.trial) for row in entries_from_mlflow(uri, "calm-bench")]
    assert found == [*(("earlier", trial) for trial in (1, 2, 4, 7, 9, 11)), ("later", 0)]
