from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from calm_bench.study_config import Study, Tracking
from pipelines.engine.events import (
    Event,
    StageFinished,
    StageProgress,
    StageStarted,
    StudyFinished,
    StudyStarted,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
from pipelines.leaderboard.entry import Entry, entry_from
from pipelines.leaderboard.leaderboard import Leaderboard, write_leaderboard
from pipelines.leaderboard.render import markdown
from pipelines.mirror.client import TrackingError, connect, entries_from_mlflow
from pipelines.mirror.metrics import TRAINED_KINDS, read_lines
from pipelines.mirror.system_metrics import SystemMetrics
from pipelines.mirror.tracking import MlflowMirror
from pipelines.sweep.trial import TrialOutcome

IDENTITY = "5f" * 8
STUDY = Study(name="k-ablation", description="Chunk sizes compared.")
SETTINGS: list[tuple[str, dict[str, Any]]] = [("token", {"model.kind": "token"}), ("K=4", {"model.chunk_size": 4})]
MakeOutcome = Callable[..., TrialOutcome]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables take seconds to create: once is enough for the tests that are not about it."""
    folder = tmp_path_factory.mktemp("mlflow")
    connect(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> Path:
    """A store's root, with a database of MLflow that holds nothing yet."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def outcomes(make_outcome: MakeOutcome) -> list[TrialOutcome]:
    return [make_outcome(STUDY, number, label, settings) for number, (label, settings) in enumerate(SETTINGS)]


def started(outcome: TrialOutcome) -> TrialStarted:
    assert outcome.graph is not None
    return TrialStarted(outcome.number, outcome.label, outcome.settings, outcome.graph)


def training(outcome: TrialOutcome, last: int = 10**9) -> Iterator[Event]:
    """The events of an outcome's stages, up to step ``last``."""
    assert outcome.graph is not None
    for kind in TRAINED_KINDS:
        if kind in outcome.folders:
            stage, folder = outcome.graph[kind], outcome.folders[kind]
            yield StageStarted(stage, folder)
            for line in read_lines(kind, folder):
                if line.step <= last:
                    yield StageProgress(stage, line.step, 100, line.metrics, line.split, 0.0, line.flops, line.time)
            if last >= 100:
                yield StageFinished(stage, folder, outcome.results[kind], 1.0)


def whole_study(outcomes: list[TrialOutcome]) -> Iterator[Event]:
    yield StudyStarted(STUDY.name, IDENTITY, Path("unused"), len(outcomes))
    for outcome in outcomes:
        yield started(outcome)
        yield from training(outcome)
        yield TrialFinished(outcome)
    yield StudyFinished(tuple(outcomes))


def mirror(store: Path, uri: str | None = None, **options: Any) -> MlflowMirror:
    return MlflowMirror(Tracking(uri=uri), store, STUDY, IDENTITY, **options)


def send(events: Iterator[Event], store: Path, uri: str | None = None, *, leaderboard: bool = True) -> list[str]:
    """Tell ``events`` to a mirror and close it; what it said."""
    said: list[str] = []
    target = mirror(store, uri, notify=said.append)
    rows: list[Entry] = []
    for event in events:
        target.handle(event)
        if isinstance(event, TrialFinished):
            rows.append(entry_from(event.outcome, STUDY))
    if leaderboard and rows:
        board = Leaderboard(rows)
        target.publish(board, markdown(board), write_leaderboard(board, store / "board").values())
    assert target.close(120) is not bool(said)
    return said


def data_sets(run: Run) -> list[tuple[str, str]]:
    assert run.inputs is not None
    return sorted((used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs)


def contents(uri: str) -> dict[str, Any]:
    """Everything that a second writing could double."""
    client = connect(uri)
    experiment = client.get_experiment_by_name("calm-bench")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return {
        "runs": sorted((run.info.run_id, run.info.status, run.info.run_name) for run in runs),
        "metrics": {
            run.info.run_id: {
                name: [
                    (point.step, point.timestamp, point.value)
                    for point in client.get_metric_history(run.info.run_id, name)
                ]
                for name in sorted(run.data.metrics)
            }
            for run in runs
        },
        "data sets": {run.info.run_id: data_sets(run) for run in runs},
        "models": sorted(
            (
                model.model_id,
                model.source_run_id,
                str(model.status),
                sorted((m.key, m.value) for m in model.metrics or []),
            )
            for model in client.search_logged_models([experiment.experiment_id])
        ),
        "artifacts": {run.info.run_id: sorted(f.path for f in client.list_artifacts(run.info.run_id)) for run in runs},
    }


def uri_of(store: Path) -> str:
    return f"sqlite:///{store.resolve() / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def no_tracking_server_of_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.slow
def test_a_study_is_in_mlflow_as_it_is_in_the_files(outcomes: list[TrialOutcome], tmp_path: Path) -> None:
    assert send(whole_study(outcomes), tmp_path) == []

    client = connect(uri_of(tmp_path))
    experiment = client.get_experiment_by_name("calm-bench")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"k-ablation", "token", "K=4"}
    parent, child = runs["k-ablation"], runs["K=4"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params["model.chunk_size"] == "4"
    assert child.data.params["model.training.learning_rate"] == "0.002"
    assert not any(name.startswith("autoencoder") for name in runs["token"].data.params)

    # Each line once, in order, by step and by FLOPs.
    lines = [
        line for line in read_lines("language_model", outcomes[1].folders["language_model"]) if line.split == "train"
    ]
    history = client.get_metric_history(child.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(line.step, line.metrics["loss"]) for line in lines]
    by_flops = client.get_metric_history(child.info.run_id, "by_gflops/train_loss")
    assert [(point.step, point.value) for point in by_flops] == [
        (3 * line.step, line.metrics["loss"]) for line in lines
    ]
    assert len(client.get_metric_history(child.info.run_id, "validation/loss")) == 20
    assert len(client.get_metric_history(child.info.run_id, "autoencoder_train/loss")) == 100
    assert "by_gflops/train_learning_rate" not in child.data.metrics

    # The autoencoder's probes, by level.
    assert child.data.metrics["autoencoder_probe/collapsed_dimensions"] == 2
    curve = client.get_metric_history(child.info.run_id, "autoencoder_probe/accuracy_bits")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.9)]
    curve = client.get_metric_history(child.info.run_id, "autoencoder_probe/accuracy_noise")
    assert [(point.step, point.value) for point in curve] == [(30, 0.99)]
    assert not any(name.startswith("autoencoder_probe") for name in runs["token"].data.metrics)

    # The row, the data set, the model with its score, the artifacts.
    row = entry_from(outcomes[1], STUDY)
    assert child.data.metrics["brierlm"] == row.brierlm
    assert child.data.metrics["brier_4_se"] == row.brier_se[3]
    assert data_sets(child) == [("stdlib", "cd" * 16)]
    (model,) = client.search_logged_models([experiment.experiment_id], f"source_run_id = '{child.info.run_id}'")
    assert {metric.key: metric.value for metric in model.metrics or []}["brierlm"] == row.brierlm
    assert model.tags["calm_bench.model_folder"] == row.model_folder
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "study.yaml",
        *(f"leaderboard.{suffix}" for suffix in ("json", "md", "csv", "png", "svg")),
    }
    assert "BrierLM" in parent.data.tags["mlflow.note.content"]
    assert (tmp_path / "mlartifacts").is_dir()

    expected = [entry_from(outcome, STUDY) for outcome in outcomes]
    assert entries_from_mlflow(uri_of(tmp_path), "calm-bench") == expected
    assert entries_from_mlflow(uri_of(tmp_path), "calm-bench", "k-ablation") == expected
    assert entries_from_mlflow(uri_of(tmp_path), "calm-bench", "other") == []


@pytest.mark.slow
def test_a_second_run_changes_nothing(outcomes: list[TrialOutcome], store: Path) -> None:
    send(whole_study(outcomes), store)
    before = contents(uri_of(store))
    # Everything is cached: no stage runs, the trials are reported as finished.
    send(iter([*(TrialFinished(outcome) for outcome in outcomes), StudyFinished(tuple(outcomes))]), store)
    assert contents(uri_of(store)) == before
    # And even where every event comes again, as after a lost store.
    send(whole_study(outcomes), store)
    assert contents(uri_of(store)) == before


@pytest.mark.slow
def test_an_interrupted_study_is_completed_without_gaps_or_repeats(
    outcomes: list[TrialOutcome], store: Path, empty_database: Path
) -> None:
    token, chunks = outcomes
    first = [started(token), *training(token), TrialFinished(token), started(chunks), *training(chunks, last=40)]
    send(iter(first), store, leaderboard=False)
    statuses = {name: status for _, status, name in contents(uri_of(store))["runs"]}
    assert statuses == {"k-ablation": "KILLED", "token": "FINISHED", "K=4": "KILLED"}

    # The next driver goes on from a checkpoint at step 30, so what follows it is written and told again, seven
    # seconds later. It is interrupted as well; a third one finds the stages done.
    for kind in TRAINED_KINDS:
        path = chunks.folders[kind] / "metrics.jsonl"
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        later = [line | {"time": line["time"] + 7.0 * (line["step"] > 30)} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in later))
    second = [started(chunks), *training(chunks, last=60)]
    send(iter(second), store, leaderboard=False)
    send(iter([TrialFinished(chunks), StudyFinished((token, chunks))]), store, leaderboard=False)
    after = contents(uri_of(store))
    assert {status for _, status, _ in after["runs"]} == {"FINISHED"}
    assert len(after["runs"]) == 3

    other = store / "at once"
    other.mkdir()
    shutil.copy(empty_database, other / "mlflow.db")
    send(whole_study(outcomes), other, leaderboard=False)
    at_once = contents(uri_of(other))

    def values(found: dict[str, Any]) -> dict[str, Any]:
        labels = {run_id: name for run_id, _, name in found["runs"]}
        return {
            labels[run_id]: {name: [(step, value) for step, _, value in points] for name, points in metrics.items()}
            for run_id, metrics in found["metrics"].items()
        }

    assert values(after) == values(at_once)


@pytest.mark.slow
def test_a_trial_that_joins_a_stage_half_way_has_all_of_it(make_outcome: MakeOutcome, store: Path) -> None:
    one = make_outcome(STUDY, 0, "one", {"model.chunk_size": 4})
    two = replace(one, number=1, label="two")
    events = list(training(one))
    half = len(events) // 3
    send(iter([started(one), *events[:half], started(two), *events[half:]]), store)
    # In a mirror of its own, so that what was told above has arrived before the files are read.
    send(iter([TrialFinished(one), TrialFinished(two)]), store, leaderboard=False)
    metrics = contents(uri_of(store))["metrics"]
    histories = [
        [(step, value) for step, _, value in named["autoencoder_train/loss"]]
        for named in metrics.values()
        if "autoencoder_train/loss" in named
    ]
    assert len(histories) == 2
    assert [step for step, _ in histories[0]] == list(range(100))
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_a_failed_trial_is_shown_with_its_reason(outcomes: list[TrialOutcome], store: Path) -> None:
    token, chunks = outcomes
    failed = replace(chunks, state="failed", error="loss is not finite at http://me:secret@host/x", folders={})
    invalid = TrialOutcome(2, "K=3", {"model.chunk_size": 3}, "invalid", error="256 is not a multiple of 3")
    ended: list[Event] = [TrialFinished(token), TrialFailed(failed), TrialFailed(invalid)]
    send(iter([started(chunks), *training(chunks, last=9), *ended, StudyFinished((token, failed, invalid))]), store)
    client = connect(uri_of(store))
    runs = {run.info.run_name: run for run in client.search_runs(["1"])}
    assert {name: run.info.status for name, run in runs.items()} == {
        "k-ablation": "FINISHED",
        "token": "FINISHED",
        "K=4": "FAILED",
        "K=3": "FAILED",
    }
    assert runs["K=4"].data.tags["calm_bench.error"] == "loss is not finite at http://***@host/x"
    assert [point.step for point in client.get_metric_history(runs["K=4"].info.run_id, "train/loss")] == list(range(10))
    assert [row.label for row in entries_from_mlflow(uri_of(store), "calm-bench")] == ["token"]

    # Tried again, it succeeds: the same run, now without the error.
    send(iter([TrialFinished(outcome) for outcome in outcomes]), store, leaderboard=False)
    again = {run.info.run_name: run for run in client.search_runs(["1"])}
    assert again["K=4"].info.run_id == runs["K=4"].info.run_id
    assert again["K=4"].info.status == "FINISHED"
    assert "calm_bench.error" not in again["K=4"].data.tags


@pytest.mark.slow
def test_system_metrics_are_on_the_parent(outcomes: list[TrialOutcome], store: Path) -> None:
    target = mirror(store, flush_interval_s=0.05, system_metrics=SystemMetrics(interval_s=0.01))
    events = list(training(outcomes[0]))
    target.handle(events[0])
    # The first events of a running stage are enough: the writer samples whenever it wakes.
    names: set[str] = set()
    while not names:
        target.handle(events[1])
        time.sleep(0.1)
        if (store / "mlflow.db").exists():
            runs = connect(uri_of(store)).search_runs(["1"])
            names = {name for run in runs for name in run.data.metrics}
    assert target.close(120)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= names


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_dead_server_neither_blocks_nor_breaks_and_is_told_once(
    outcomes: list[TrialOutcome], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    said: list[str] = []
    uri = f"http://someone:secret@127.0.0.1:{closed_port()}"
    target = mirror(store, uri, notify=said.append, flush_interval_s=0.01, retry_interval_s=0.05)
    for event in whole_study(outcomes):
        target.handle(event)
    assert target.close(60) is False
    (message,) = said
    assert "the same command sends what is missing" in message
    assert "secret" not in message
    assert "***@127.0.0.1" in message
    # What was kept is sent to where it can go.
    assert send(whole_study(outcomes), store, leaderboard=False) == []
    assert len(entries_from_mlflow(uri_of(store), "calm-bench")) == 2


def test_a_server_that_never_answers_does_not_hold_up_the_end(outcomes: list[TrialOutcome], tmp_path: Path) -> None:
    # It accepts connections and says nothing.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        said: list[str] = []
        target = mirror(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", notify=said.append)
        target.handle(TrialFinished(outcomes[0]))
        assert target.close(0.5) is False
        assert len(said) == 1


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="run a study first"):
        entries_from_mlflow(uri_of(tmp_path), "calm-bench")
    assert not (tmp_path / "mlflow.db").exists()
    connect(uri_of(tmp_path))
    with pytest.raises(TrackingError, match=r"no experiment 'calm-bench'; it has 'Default'"):
        entries_from_mlflow(uri_of(tmp_path), "calm-bench")


@pytest.mark.slow
def test_credentials_do_not_reach_mlflow(make_outcome: MakeOutcome, store: Path) -> None:
    study = STUDY.model_copy(update={"tracking": Tracking(uri=uri_of(store) + "?token=hidden-thing")})
    # sqlite itself refuses the parameter, so the study says one address and the mirror uses another.
    target = MlflowMirror(Tracking(), store, study, IDENTITY)
    target.handle(TrialFinished(make_outcome(study, 0, "K=4", {})))
    assert target.close(120)
    files = [path for path in (store / "mlartifacts").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any("hidden-thing" in path.read_text() for path in files)
    assert b"hidden-thing" not in (store / "mlflow.db").read_bytes()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real tracking server on loopback."""
    port = closed_port()
    uri = f"http://127.0.0.1:{port}"
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"),
            *("--artifacts-destination", str(tmp_path / "server-artifacts")),
        ],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < deadline, "the tracking server did not start"
                time.sleep(0.5)
        yield uri
    finally:
        # The group that Popen made: the server and its worker.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()


@pytest.mark.slow
def test_a_real_server_holds_the_same_as_the_file(server: str, outcomes: list[TrialOutcome], tmp_path: Path) -> None:
    assert send(whole_study(outcomes), tmp_path, server) == []
    before = contents(server)
    assert send(whole_study(outcomes), tmp_path, server) == []
    assert contents(server) == before
    assert len(before["runs"]) == 3
    assert entries_from_mlflow(server, "calm-bench") == [entry_from(outcome, STUDY) for outcome in outcomes]
    assert not (tmp_path / "mlflow.db").exists()
    assert any((tmp_path / "server-artifacts").rglob("leaderboard.png"))
