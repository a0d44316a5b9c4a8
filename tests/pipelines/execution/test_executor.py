from __future__ import annotations

import threading
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.execution.failures import WorkerFailed
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.run_stage import StageError
from pipelines.store.store import Store
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind

Toy = Callable[..., Stage]


def test_a_stage_is_run_once_and_published(store: Store, toy: Toy) -> None:
    first = toy("draw", seed=1)
    second = toy("draw", seed=2, first=first)
    executor = LocalExecutor(store)
    result = executor.submit(first).result()
    assert result == store.result(first)
    assert result["threads"] == 1
    assert executor.submit(second).result()["value"] != result["value"]
    modified = (store.folder(first) / "result.json").stat().st_mtime_ns
    assert executor.submit(first).result() == result
    assert (store.folder(first) / "result.json").stat().st_mtime_ns == modified
    executor.close()


def test_a_failure_names_the_stage_and_the_cause(store: Store, toy: Toy) -> None:
    executor = LocalExecutor(store)
    with pytest.raises(StageError, match=r"fail: ArithmeticError: it does not add up \(traceback in .*error.txt"):
        executor.submit(toy("fail")).result()
    assert not store.is_done(toy("fail"))
    assert not store.is_claimed(toy("fail"))
    assert "run_fail" in (store.work_folder(toy("fail")) / "error.txt").read_text()
    assert executor.submit(toy("draw")).result(), "the worker goes on after a failure"
    executor.close()


def test_what_a_failed_stage_held_is_let_go_of(store: Store, toy: Toy) -> None:
    """A model on a GPU is memory that the next stage needs, whoever keeps the error."""
    held: list[weakref.ref[Any]] = []

    class Model:
        pass

    def run_held(stage: Stage, inputs: Any, folder: Path, context: StageContext) -> dict[str, Any]:
        model = Model()
        held.append(weakref.ref(model))
        raise ArithmeticError("it does not fit")

    STAGE_KINDS.register("held", StageKind("held", run_held, uses_torch=False))
    executor = LocalExecutor(store)
    error = executor.submit(toy("held")).exception()
    assert isinstance(error, StageError)
    assert isinstance(error.__cause__, ArithmeticError)
    assert "run_held" in "".join(traceback.format_exception(error)), "where it was raised is still told"
    assert held[0]() is None
    executor.close()


def test_a_failure_is_told_with_what_was_noted_of_it(store: Store, toy: Toy) -> None:
    """As code that cannot be compiled, or a step that cannot be recorded, says how to do without."""

    def run_noted(stage: Stage, inputs: Any, folder: Path, context: StageContext) -> dict[str, Any]:
        error = RuntimeError("no Python.h")
        error.add_note("CALM_BENCH_COMPILE=0 trains without compiling")
        raise error

    STAGE_KINDS.register("noted", StageKind("noted", run_noted, uses_torch=False))
    executor = LocalExecutor(store)
    told = r"noted: RuntimeError: no Python.h \(CALM_BENCH_COMPILE=0 trains without compiling\) \(traceback in"
    with pytest.raises(StageError, match=told):
        executor.submit(toy("noted")).result()
    executor.close()
    with pytest.raises(RuntimeError) as raised:
        run_noted(toy("noted"), {}, Path(), StageContext("cpu", lambda: False))
    told = str(WorkerFailed.of(raised.value))
    assert told == "no Python.h (CALM_BENCH_COMPILE=0 trains without compiling)"


def test_a_stopped_stage_continues_in_the_next_run(store: Store, toy: Toy) -> None:
    stage = toy("patient")
    executor = LocalExecutor(store)
    running, waiting = executor.submit(stage), executor.submit(toy("draw"))
    while not store.is_claimed(stage):
        time.sleep(0.01)
    executor.stop()
    for future in (running, waiting):
        with pytest.raises(Interrupted):
            future.result()
    executor.close()
    assert not store.is_claimed(stage)
    assert (store.work_folder(stage) / "checkpoints").exists()
    executor = LocalExecutor(store)
    assert executor.submit(stage).result() == {"value": 1.0}
    assert not (store.folder(stage) / "checkpoints").exists()
    executor.close()


def test_two_drivers_share_the_work(store: Store, toy: Toy) -> None:
    stage = toy("draw")
    lease = store.claim(stage)
    assert lease is not None
    executor = LocalExecutor(Store(store.root))
    future = executor.submit(stage)
    store.open_work(stage, "cpu")

    def publish() -> None:
        store.publish(stage, {"value": -1.0}, {})
        lease.release()

    release = threading.Timer(0.5, publish)
    release.start()
    assert future.result() == {"value": -1.0}, "the other driver's result, not one of its own"
    release.join()
    executor.close()
