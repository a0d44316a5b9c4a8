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
class Workplace:
    """A context manager, at whose end the executor is closed."""

    store: Store
    executor: Executor

    @classmethod
    def of(cls, study: Study, may_be_refused: bool = False) -> Workplace:
        """The workplace that ``study.execution`` describes.

        Where it is sure, or nearly so, that something is to be run, the executor begins to get ready: that takes
        seconds, and the plan that says so takes its time too.

        Args:
            may_be_refused: the plan may say that nothing is run.

        Raises:
            ExecutorError, ConfigurationError, StoreError: it cannot be had as configured.
        """
        place = cls(store := open_store(study.execution.store), make_executor(study.execution, store))
        # By its name alone, since the study's identity may be a digest of gigabytes of text.
        has_ended = any((store.root / "studies").glob(f"{study.name}-*/leaderboard.json"))
        if not (has_ended or may_be_refused):
            place.executor.prepare()
        return place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.executor.close()
