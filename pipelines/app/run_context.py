"""Where a study is run: its store, and the executor of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.execution.choose_executor import make_executor
from pipelines.execution.executor import Executor
from pipelines.store.opening import open_store
from pipelines.store.store import Store

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from pipelines.study.config import Study


@dataclass(frozen=True)
class RunContext:
    """A context manager, at whose end the executor is closed."""

    store: Store
    executor: Executor

    @classmethod
    def of(cls, study: Study) -> RunContext:
        """The workplace that ``study.execution`` describes. Nothing is started before the first stage is submitted.

        Raises:
            ExecutorError, ConfigurationError, StoreError: it cannot be had as configured.
        """
        store = open_store(study.execution.store)
        return cls(store, make_executor(study.execution, store))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.executor.close()
