"""Samples of how busy the machine is: none is written once nobody will send it, and all that are written arrive."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from pipelines.study.config import Study
from pipelines.tracking import system_metrics
from pipelines.tracking.client import connect
from pipelines.tracking.runs import StudyRuns
from pipelines.tracking.system_metrics import SystemLog, SystemSampler


class Slow:
    """A collector that takes until it is let go, as a busy disk does."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def collect_metrics(self) -> None:
        self.begun.set()
        assert self.go.wait(30)

    def aggregate_metrics(self) -> dict[str, float]:
        return {"cpu": 1.0}

    def clear_metrics(self) -> None:
        pass


@pytest.mark.parametrize("end", ["stopped", "nothing runs", "goes on"])
def test_a_sample_under_way_when_the_study_ends_is_not_written(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last sync has read the log by then: MLflow would lack the sample."""
    collector, log = Slow(), SystemLog(tmp_path)
    monkeypatch.setattr(system_metrics, "_collectors", lambda: [collector])
    sampler = SystemSampler(log, 0.01, pytest.fail)
    sampler.is_wanted = True
    sampler.start()
    assert collector.begun.wait(30)
    if end == "stopped":
        sampler.stop()
    elif end == "nothing runs":
        sampler.is_wanted = False
    collector.begun.clear()
    collector.go.set()
    if end == "goes on":
        # Of the sample after it; the one that was under way is written by then.
        assert collector.begun.wait(30)
    threading.Event().wait(0.1)
    sampler.stop()
    assert bool(list(log.samples())) is (end == "goes on")


def test_samples_arrive_whatever_their_clock_says(tmp_path: Path, empty_database: Path) -> None:
    """Two drivers write one log, and either may be slow between its look at the clock and its line; hosts without a
    common disk have logs of their own."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    client = connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("samples")
    here, elsewhere = SystemLog(tmp_path / "here"), SystemLog(tmp_path / "elsewhere")

    def send(log: SystemLog) -> dict[int, float]:
        study = StudyRuns(client, experiment, Study(name="small"), "5f" * 8, 1_000, None, lambda: None)
        study.push_system(log.samples())
        return {point.timestamp: point.value for point in client.get_metric_history(study.parent_id, "system/cpu")}

    here.begin(1_000)
    here.add(30_000, {"cpu": 1.0})
    assert send(here) == {30_000: 1.0}
    here.add(29_000, {"cpu": 2.0})
    assert send(here) == {30_000: 1.0, 29_000: 2.0}
    elsewhere.begin(2_000)
    elsewhere.add(3_000, {"cpu": 3.0})
    assert send(elsewhere) == send(here) == {30_000: 1.0, 29_000: 2.0, 3_000: 3.0}
