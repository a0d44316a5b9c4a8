"""Where stages run: the interface, and the executor in this process."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from calm_bench.study_config import Execution
from pipelines.engine.failures import cause_of
from pipelines.engine.perform import StageError, perform
from pipelines.stages.stage import STAGE_KINDS, Interrupted, Stage, StageKind
from pipelines.store.store import Store


class ExecutorError(RuntimeError):
    """Stages cannot be run as configured; the message says what to change."""


class Executor(Protocol):
    """Runs stages whose inputs are finished."""

    @property
    def parallelism(self) -> int:
        """How many stages are worth submitting at once."""

    def prepare(self) -> None:
        """Begin with what takes its time before the first stage, where one is likely to come. Returns soon."""

    def settle(self) -> None:
        """Return when what :meth:`prepare` began does not keep the machine busy any more, whatever came of it."""

    def submit(self, stage: Stage) -> Future[dict[str, Any]]:
        """Run ``stage``; the future gives its result, or raises StageError, Interrupted or ExecutorError."""

    def lacking(self, stage: Stage) -> str | None:
        """Why there is no room for a submitted stage, even if nothing else ran; None where there is."""

    def stop(self) -> None:
        """Ask every stage, running or waiting, to save its state and end with Interrupted. Returns at once."""

    def stop_stage(self, stage: Stage) -> None:
        """Ask one stage to do so. Returns at once."""

    def close(self) -> None:
        """Let go of all workers, without waiting for what they are at."""


def make_executor(execution: Execution, store: Store) -> Executor:
    """The executor that ``execution.backend`` names; nothing is started before the first stage is submitted."""
    if execution.backend == "local":
        if execution.workers > 1:
            raise ExecutorError(
                f"execution.workers={execution.workers} needs Ray, which starts several workers for one training: use "
                "execution.backend=ray (without --local), or execution.workers=1"
            )
        return LocalExecutor(store, execution.device, execution.keep_checkpoints)
    from pipelines.engine.ray_executor import RayExecutor

    return RayExecutor(store, execution)


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalExecutor:
    """One stage after the other in a thread of this process.

    A thread and not the main one, so that the driver goes on to show progress and to hear Ctrl-C; a daemon, so that a
    second Ctrl-C ends the process at once.
    """

    parallelism = 1

    def __init__(self, store: Store, device: str = "auto", keep_checkpoints: int | None = None) -> None:
        self._store = store
        self._device = device
        self._keep_checkpoints = keep_checkpoints
        self._stopped = threading.Event()
        self._unwanted: set[Stage] = set()
        self._queue: queue.SimpleQueue[tuple[Stage, StageKind, Future[dict[str, Any]]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def prepare(self) -> None:
        pass

    def settle(self) -> None:
        pass

    def submit(self, stage: Stage) -> Future[dict[str, Any]]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="stages", daemon=True)
            self._thread.start()
        # What an earlier try of it was stopped by must not stop this one.
        self._unwanted.discard(stage)
        future: Future[dict[str, Any]] = Future()
        self._queue.put((stage, STAGE_KINDS.get(stage.kind), future))
        return future

    def lacking(self, stage: Stage) -> str | None:
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
                result = perform(self._store, stage, kind, self._device, self._stop(stage), self._keep_checkpoints)
            except (StageError, Interrupted) as error:
                future.set_exception(error)
            except BaseException as error:
                # Nobody else watches this thread: an error of the store itself must reach the driver too.
                future.set_exception(StageError(f"{stage}: {type(error).__name__}: {error}", cause=cause_of(error)))
            else:
                future.set_result(result)

    def _stop(self, stage: Stage) -> Callable[[], bool]:
        return lambda: self._stopped.is_set() or stage in self._unwanted
