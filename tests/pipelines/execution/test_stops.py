"""A stop that reaches workers before their driver, or a worker alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.training_options import DEFAULT_OPTIONS
from pipelines.execution import interrupt, ray_train
from pipelines.execution.events import StageFailed, StageRetried
from pipelines.execution.failures import WorkerFailed
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


@pytest.mark.parametrize("is_told", [True, False])
def test_an_answer_that_ray_cannot_carry_any_more_is_not_waited_for(
    is_told: bool, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SIGTERM went to Ray's servers too: by the word of the first worker, or by the end of the node's Ray."""
    monkeypatch.setattr(ray_train, "ANSWER_S", 0.3)
    monkeypatch.setattr(ray_train, "SAVE_S", 0.6)
    asked, never, saved = threading.Event(), threading.Event(), tmp_path / "saved"
    saved.touch()

    def end_of_a_job() -> None:
        asked.set()
        time.sleep(0.5)
        if is_told:
            saved.touch()
        else:
            # As of a process whose parent has ended.
            monkeypatch.setattr(os, "getppid", lambda: 1)

    def fit() -> dict[str, Any]:
        assert not saved.exists(), "what an earlier try has left tells nothing"
        threading.Thread(target=end_of_a_job).start()
        never.wait(60)
        return {}

    began = time.monotonic()
    with pytest.raises(Interrupted, match="stopped together with Ray"):
        ray_train._while_ray_lives(fit, toy("patient"), saved, asked.is_set)
    never.set()
    assert 0.7 < time.monotonic() - began < 20
    assert not saved.exists()


def test_an_answer_is_waited_for_while_nobody_asks_to_stop_or_ray_carries_it(toy: Toy, tmp_path: Path) -> None:
    def fit(stopped: bool) -> dict[str, Any]:
        if not stopped:
            (tmp_path / "saved").touch()
        time.sleep(1.0)
        return {"result": 1}

    def failing() -> dict[str, Any]:
        raise WorkerFailed("OSError", "no space left", "", "transient")

    for stopped in (False, True):
        answer = ray_train._while_ray_lives(
            lambda stopped=stopped: fit(stopped), toy("patient"), tmp_path / "saved", lambda stopped=stopped: stopped
        )
        assert answer == {"result": 1}
    with pytest.raises(WorkerFailed, match="no space left"):
        ray_train._while_ray_lives(failing, toy("patient"), tmp_path / "saved", lambda: True)


def test_a_worker_of_several_that_is_told_to_end_saves_with_the_others_or_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_train, "RELAY_S", 0.2)
    for is_passed_on in (True, False):
        sigterm = threading.Event()
        stop = ray_train._Stop(tmp_path, sigterm)
        assert not stop()
        sigterm.set()
        assert not stop(), "the stage's task may be telling all of them"
        if is_passed_on:
            (tmp_path / ray_train.STOP).touch()
            time.sleep(0.3)
            assert stop()
            (tmp_path / ray_train.STOP).unlink()
        else:
            time.sleep(0.3)
            with pytest.raises(WorkerFailed, match="SIGTERM") as ended:
                stop()
            assert ended.value.cause == "transient"
