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

    def submit(self, stage: Stage) -> Future[dict[str, Any]]:
        """Run ``stage``; the future gives its result, or raises StageError, Interrupted or ExecutorError.

        Returns at once, whatever has to be started for it.
        """

    def unschedulable_reason(self, stage: Stage) -> str | None:
        """Why a submitted stage could not be placed even if nothing else ran; None where it could."""

    def stop(self) -> None:
        """Ask every stage, running or waiting, to save its state and end with Interrupted. Returns at once."""

    def stop_stage(self, stage: Stage) -> None:
        """Ask one stage to do so. Returns at once."""

    def close(self) -> None:
        """Let go of all workers, without waiting for what they are at."""
