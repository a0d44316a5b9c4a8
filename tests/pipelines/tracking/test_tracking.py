from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from pipelines.common.numbers import clipped_with_error
from pipelines.execution.events import (
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
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.results.entry import Entry, entry_from
from pipelines.results.leaderboard import Leaderboard
from pipelines.store.metrics_log import read_lines
from pipelines.store.provenance import ATTEMPTS_FILE
from pipelines.store.store import Store
from pipelines.study.config import Study, Tracking
from pipelines.study.trial import TrialOutcome
from pipelines.tracking.address import TrackingError
from pipelines.tracking.client import connect
from pipelines.tracking.listener import TrackingListener
from pipelines.tracking.rows import entries_from_mlflow
from pipelines.tracking.servers import free_port
from pipelines.tracking.sync import StudySync
from tests.pipelines.tracking.conftest import StudyWriter

IDENTITY = "5f" * 8
STUDY = Study(name="k-ablation", description="Chunk sizes compared.")
SETTINGS: list[tuple[str, dict[str, Any]]] = [("token", {"model.kind": "token"}), ("K=4", {"model.chunk_size": 4})]
MakeOutcome = Callable[..., TrialOutcome]


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


def training(outcome: TrialOutcome, last: int = 10**9, resumed_at: int | None = None) -> Iterator[Event]:
    """The events of an outcome's trainings up to step ``last``, whose files grow as they tell.

    Args:
        resumed_at: the step from which a new attempt goes on, seven seconds late; what stood behind it is cut off.
    """
    assert outcome.graph is not None
    for kind in ("autoencoder", "language_model"):
        if kind not in outcome.folders:
            continue
        stage, folder = outcome.graph[kind], outcome.folders[kind]
        work = Store(folder.parent.parent.parent).work_folder(stage)
        log, whole = work / "metrics.jsonl", work / "whole.jsonl"
        if folder.exists():
            work.parent.mkdir(exist_ok=True)
            folder.rename(work)
            log.rename(whole)
            log.touch()
            attempts = json.loads((work / "provenance.json").read_text())["attempts"]
            (work / ATTEMPTS_FILE).write_text("".join(json.dumps(attempt) + "\n" for attempt in attempts))
        rows = [json.loads(text) for text in whole.read_text().splitlines()]
        if resumed_at is not None:
            rows = [row | {"time": row["time"] + 7.0 * (row["step"] > resumed_at)} for row in rows]
            log.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= resumed_at))
            whole.write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield StageStarted(stage, work)
        for row in rows[len(log.read_text().splitlines()) :]:
            if row["step"] > last:
                break
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            yield StageProgress(stage, row["step"], 100, row["metrics"], row["split"], 0.0, row["flops"], row["time"])
        if last >= 100:
            whole.unlink()
            work.rename(folder)
            yield StageFinished(stage, folder, outcome.results[kind], 1.0)


def whole_study(outcomes: list[TrialOutcome]) -> Iterator[Event]:
    yield StudyStarted(STUDY.name, IDENTITY, Path("unused"), len(outcomes))
    for outcome in outcomes:
        yield started(outcome)
        yield from training(outcome)
        yield TrialFinished(outcome)
    yield StudyFinished(tuple(outcomes))


class TrialResult:
    """A listener, and the files that grow as it is told."""

    def __init__(self, store: Path, uri: str | None = None, study: Study = STUDY, **options: Any) -> None:
        self.files = StudyWriter(store, study, IDENTITY)
        self.listener = TrackingListener(Tracking(uri=uri), Store(store), self.files.folder, **options)

    def handle(self, event: Event) -> None:
        self.files.write(event)
        self.listener.handle(event)


def send(events: Iterator[Event], store: Path, uri: str | None = None, *, leaderboard: bool = True) -> list[str]:
    """Tell ``events`` to a listener and close it; what it said."""
    said: list[str] = []
    target = TrialResult(store, uri, notify=said.append)
    rows: list[Entry] = []
    for event in events:
        target.handle(event)
        if isinstance(event, TrialFinished):
            rows.append(entry_from(event.outcome, STUDY))
    if leaderboard and rows:
        write_leaderboard(Leaderboard(rows), target.files.folder)
    all_sent = target.listener.close(120)
    assert all_sent is not bool(said), "\n".join(said)
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


@pytest.mark.slow
def test_a_study_is_in_mlflow_as_it_is_in_the_files(outcomes: list[TrialOutcome], store: Path) -> None:
    assert send(whole_study(outcomes), store) == []

    client = connect(uri_of(store))
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
    assert len(client.get_metric_history(child.info.run_id, "optimizer/learning_rate")) == 100
    # Dated by the files: corpus and tokens took a minute each, then the autoencoder began, then the language model.
    assert child.info.start_time == 1000 * (2_000_000_000 + 2 * 60)
    assert child.info.end_time == 1000 * (2_000_000_000 + 4 * 60 + 50)
    assert history[3].timestamp == 1000 * (2_000_000_000 + 3 * 60) + 750

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
    assert child.data.metrics["error/brier_4"] == row.brier_se[3]
    assert data_sets(child) == [("stdlib", "cd" * 16)]
    (model,) = client.search_logged_models([experiment.experiment_id], f"source_run_id = '{child.info.run_id}'")
    assert {metric.key: metric.value for metric in model.metrics or []}["brierlm"] == row.brierlm
    assert model.tags["calm_bench.model_folder"] == row.model_folder
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "study.yaml",
        *(f"leaderboard.{suffix}" for suffix in ("json", "md", "csv", "png", "svg")),
    }
    assert "BrierLM" in parent.data.tags["mlflow.note.content"]
    assert "calm-bench run study.yaml" in parent.data.tags["mlflow.note.content"]
    assert f"**BrierLM {clipped_with_error(row.brierlm, row.brierlm_se)}**" in child.data.tags["mlflow.note.content"]
    assert (store / "mlartifacts").is_dir()

    expected = [entry_from(outcome, STUDY).model_copy(update={"study_identity": IDENTITY}) for outcome in outcomes]
    assert entries_from_mlflow(uri_of(store), "calm-bench") == expected
    assert entries_from_mlflow(uri_of(store), "calm-bench", "k-ablation") == expected
    assert entries_from_mlflow(uri_of(store), "calm-bench", "other") == []


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

    # The next driver goes on from a checkpoint at step 30. It is interrupted as well; a third one ends the study.
    second = [started(chunks), *training(chunks, last=60, resumed_at=30)]
    send(iter(second), store, leaderboard=False)
    list(training(chunks))
    send(iter([TrialFinished(chunks), StudyFinished((token, chunks))]), store, leaderboard=False)
    after = contents(uri_of(store))
    assert {status for _, status, _ in after["runs"]} == {"FINISHED"}
    assert len(after["runs"]) == 3

    shutil.copy(empty_database, store / "at once.db")
    other = f"sqlite:///{store / 'at once.db'}"
    send(whole_study(outcomes), store, other, leaderboard=False)
    at_once = contents(other)

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
    # To a listener of its own, so that what was told above has arrived before the files are read.
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
    list(training(chunks))
    send(iter([TrialFinished(outcome) for outcome in outcomes]), store, leaderboard=False)
    again = {run.info.run_name: run for run in client.search_runs(["1"])}
    assert again["K=4"].info.run_id == runs["K=4"].info.run_id
    assert again["K=4"].info.status == "FINISHED"
    assert "calm_bench.error" not in again["K=4"].data.tags


@pytest.mark.slow
def test_system_metrics_are_on_the_parent(outcomes: list[TrialOutcome], store: Path) -> None:
    target = TrialResult(store, interval_s=0.05, sample_interval_s=0.05)
    events = list(training(outcomes[0]))
    target.handle(events[0])
    # The first events of a running stage are enough.
    names: set[str] = set()
    while not names:
        target.handle(events[1])
        time.sleep(0.1)
        if (store / "mlflow.db").exists():
            runs = connect(uri_of(store)).search_runs(["1"])
            names = {name for run in runs for name in run.data.metrics}
    assert target.listener.close(120)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= names


def test_a_dead_server_neither_blocks_nor_breaks_and_is_told_once(
    outcomes: list[TrialOutcome], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With MLflow's own defaults a request to an absent server takes minutes.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    said: list[str] = []
    uri = f"http://someone:secret@127.0.0.1:{free_port(0)}"
    target = TrialResult(store, uri, notify=said.append, interval_s=0.01, retry_interval_s=0.05)
    for event in whole_study(outcomes):
        target.handle(event)
    assert target.listener.close(60) is False
    away, incomplete = said
    assert "what is missing is sent when MLflow answers again" in away
    assert "calm-bench mlflow sync k-ablation-" in incomplete
    assert '--uri "${MLFLOW_TRACKING_URI:?}" sends what is missing' in incomplete
    assert all("secret" not in message and "***@127.0.0.1" in message for message in said)
    # What was kept is sent to where it can go.
    assert send(whole_study(outcomes), store, leaderboard=False) == []
    assert len(entries_from_mlflow(uri_of(store), "calm-bench")) == 2


def test_a_server_that_never_answers_does_not_hold_up_the_end(outcomes: list[TrialOutcome], tmp_path: Path) -> None:
    # It accepts connections and says nothing.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        said: list[str] = []
        target = TrialResult(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", notify=said.append)
        target.handle(TrialFinished(outcomes[0]))
        assert target.listener.close(0.5) is False
        assert len(said) == 1


def test_reading_says_what_is_wrong(tmp_path: Path, empty_database: Path) -> None:
    with pytest.raises(TrackingError, match=r"a study that is run with .* makes one"):
        entries_from_mlflow(uri_of(tmp_path), "calm-bench")
    assert not (tmp_path / "mlflow.db").exists()
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with pytest.raises(TrackingError, match="no experiment 'calm-bench'; known: Default"):
        entries_from_mlflow(uri_of(tmp_path), "calm-bench")


@pytest.mark.slow
def test_credentials_do_not_reach_mlflow(make_outcome: MakeOutcome, store: Path) -> None:
    study = STUDY.model_copy(update={"tracking": Tracking(uri=uri_of(store) + "?token=hidden-thing")})
    # sqlite itself refuses the parameter, so the study says one address and its tracking uses another.
    target = TrialResult(store, study=study)
    target.handle(TrialFinished(make_outcome(study, 0, "K=4", {})))
    assert target.listener.close(120)
    files = [path for path in (store / "mlartifacts").rglob("*") if path.is_file()]
    assert {"study.yaml", "experiment.yaml"} <= {path.name for path in files}
    assert not any("hidden-thing" in path.read_text() for path in files)
    assert b"hidden-thing" not in (store / "mlflow.db").read_bytes()


def test_a_stage_that_is_made_anew_is_missed_only_at_the_end(outcomes: list[TrialOutcome], store: Path) -> None:
    files = StudyWriter(store, STUDY, IDENTITY)
    for event in whole_study(outcomes):
        files.write(event)
    # A driver finds the folder damaged, and trains anew a stage of a trial that is known as complete.
    outcomes[1].folders["autoencoder"].rename(store / "elsewhere")
    sync = StudySync(Store(store), files.folder, uri_of(store), "calm-bench")
    assert sync.is_writer()
    missed: list[str] = []
    sync.sync("at work", missed.append)
    assert missed == []
    sync.sync("at rest", missed.append)
    sync.release()
    assert [text.partition(" (")[0] for text in missed] == ["trial 1 cannot be read"]
