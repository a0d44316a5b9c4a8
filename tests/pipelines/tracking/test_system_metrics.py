"""Samples of how busy the machine is: none is written once nobody will send it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipelines.tracking import system_metrics
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
