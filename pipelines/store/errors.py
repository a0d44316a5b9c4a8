"""What can be wrong with a store; each message says what to do."""

from __future__ import annotations

from collections.abc import Sequence

from calm_bench.errors import RunError


class StoreUnreachable(RunError, OSError):
    """An object store did not answer as it should, which may pass; the message says what was tried."""


class StoreForbidden(RunError, PermissionError):
    """A folder or an object store refused; the message says what is missing."""


class StudyBusy(RunError, RuntimeError):
    """Another driver runs the study, and the store cannot let two drivers share its journal."""


class CorruptedStage(RunError, RuntimeError):
    """A finished stage cannot be fetched as it was published."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)
