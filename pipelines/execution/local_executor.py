"""Stages one after the other in a thread of this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from calm_bench.training_options import DEFAULT_OPTIONS, TrainingOptions
from pipelines.execution.failures import let_go
from pipelines.execution.run_stage import StageError, run_stage, stage_error
from pipelines.store.store import Store
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind


class LocalExecutor:
    """One stage after the other in a thread of this process.

    A thread and not the main one, so that the driver goes on to show progress and to hear Ctrl-C; a daemon, so that a
    second Ctrl-C ends the process at once.
    """

    parallelism = 1

    def __init__(self, store: Store, device: str = "auto", training: TrainingOptions = DEFAULT_OPTIONS) -> None:
        self._store = store
        self._device = device
        self._training = training
        self._stopped = threading.Event()
        self._unwanted: set[Stage] = set()
        self._queue: queue.SimpleQueue[tuple[Stage, StageKind, Future[dict[str, Any]]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, stage: Stage) -> Future[dict[str, Any]]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="stages", daemon=True)
            self._thread.start()
        # Clear the wish to stop that a previous attempt left behind.
        self._unwanted.discard(stage)
        future: Future[dict[str, Any]] = Future()
        self._queue.put((stage, STAGE_KINDS.get(stage.kind), future))
        return future

    def unschedulable_reason(self, stage: Stage) -> str | None:
        return None

    def stop(self) -> None:
        self._stopped.set()

    def stop_stage(self, stage: Stage) -> None:
        self._unwanted.add(stage)

    def close(self) -> None:
        self.stop()
        self._queue.put(None)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            stage, kind, future = item
            try:
                context = StageContext(self._device, self._stop(stage), self._training)
                result = run_stage(self._store, stage, kind, context)
            except (StageError, Interrupted) as error:
                let_go(error)
                future.set_exception(error)
            except BaseException as error:
                # Nobody else watches this thread: whatever ends a stage must reach the driver.
                future.set_exception(stage_error(stage, error))
            else:
                future.set_result(result)

    def _stop(self, stage: Stage) -> Callable[[], bool]:
        return lambda: self._stopped.is_set() or stage in self._unwanted
