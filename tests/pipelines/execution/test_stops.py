"""A stop that reaches workers before their driver, or a worker alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from calm_bench.training_options import DEFAULT_OPTIONS
from pipelines.execution import interrupt
from pipelines.execution.events import StageFailed, StageRetried
from pipelines.execution.interrupt import forget_signals, polite_stop
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_executor import _perform
from pipelines.execution.run_stage import StageError
from pipelines.execution.scheduler import Scheduler
from pipelines.execution.worker_process import hearing_sigterm
from pipelines.store.store import Store
from pipelines.study.stage import Interrupted, Stage, StageGraph
from pipelines.study.stage_kind import STAGE_KINDS

Toy = Callable[..., Stage]


@pytest.mark.parametrize("asked_after_s", [-1.0, 0.5])
def test_what_is_lost_while_a_stop_is_asked_for_stays_open(
    store: Store, toy: Toy, recorder: Any, asked_after_s: float
) -> None:
    """Before the driver heard of the stop, or just after: who ends all processes of a job asks them in some order."""
    stage, listener = toy("unlucky", seed=9), recorder()
    executor = LocalExecutor(store)
    failed: list[float] = []

    def stop_asked() -> bool:
        if not failed and executor_is_done():
            failed.append(time.monotonic())
        return bool(failed) and time.monotonic() - failed[0] > asked_after_s

    def executor_is_done() -> bool:
        return not store.is_claimed(stage) and store.is_started(stage)

    scheduler = Scheduler(store, executor, listener, retries=0, stop_asked=stop_asked)
    scheduler.add(StageGraph((stage,)))
    scheduler.submit()
    while not scheduler.is_idle:
        scheduler.wait()
    executor.close()
    assert scheduler.errors == scheduler.results == {}
    assert listener.kinds_of(StageFailed) == listener.kinds_of(StageRetried) == []
    assert store.is_started(stage), "the next run goes on from there"


def _end_this_process_when_claimed(store: Store, stage: Stage) -> None:
    while not store.is_claimed(stage):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_sigterm_that_comes_twice_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from Slurm, which tells every process of a job, and from its script, which hands it on."""
    monkeypatch.setattr(interrupt, "ECHO_S", 600.0)
    with polite_stop() as request:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert request.reason == "SIGTERM"
        monkeypatch.setattr(interrupt, "ECHO_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.undo()
    with polite_stop():
        os.kill(os.getpid(), signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
    forget_signals()


def test_a_worker_that_hears_sigterm_saves_and_ends(store: Store, toy: Toy) -> None:
    stage, before = toy("patient"), signal.getsignal(signal.SIGTERM)
    kind = STAGE_KINDS.get(stage.kind)
    threading.Thread(target=_end_this_process_when_claimed, args=(store, stage)).start()
    answer = _perform(store, stage, kind, "cpu", ("all", "one"), DEFAULT_OPTIONS, None, None)
    assert isinstance(answer, StageError)
    assert answer.cause == "transient", "another worker may go on at once"
    assert "told to end (SIGTERM)" in str(answer)
    assert (store.work_folder(stage) / "checkpoints" / "state").exists()
    assert not store.is_claimed(stage)
    assert signal.getsignal(signal.SIGTERM) == before
    # Where the study was asked to stop as well, it is a stop like any other.
    other = toy("patient", seed=1)
    store.flags.raise_flag("all")
    with hearing_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert isinstance(_perform(store, other, kind, "cpu", ("all", "one"), DEFAULT_OPTIONS, None, None), Interrupted)
    store.flags.lower("all")
    assert _perform(store, stage, kind, "cpu", ("all", "one"), DEFAULT_OPTIONS, None, None) == {"value": 1.0}


def test_a_worker_hears_sigterm_whose_ray_does_not() -> None:
    """The servers of a job of several nodes outlive it, so that workers can save; those inherit what they ignore."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with hearing_sigterm() as heard:
            assert not heard()
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard()
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "as it was"
        assert signal.SIGTERM not in signal.sigpending()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
