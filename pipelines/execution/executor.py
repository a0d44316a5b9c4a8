"""Where stages run: the interface, and the executor in this process."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from calm_bench.errors import RunError
from pipelines.study.stage import Stage


class ExecutorError(RunError, RuntimeError):
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
