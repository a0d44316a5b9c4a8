"""The executor that a study asks for."""

from __future__ import annotations

from pipelines.execution.executor import Executor, ExecutorError
from pipelines.execution.local_executor import LocalExecutor
from pipelines.store.store import Store
from pipelines.study.config import Execution


def make_executor(execution: Execution, store: Store) -> Executor:
    """The executor that ``execution.backend`` names; nothing is started before the first stage is submitted."""
    if execution.backend == "local":
        if execution.workers > 1:
            raise ExecutorError(
                f"execution.workers={execution.workers} needs Ray, which starts several workers for one training: use "
                "execution.backend=ray (without --local), or execution.workers=1"
            )
        return LocalExecutor(store, execution.device, execution.training)
    from pipelines.execution.ray_executor import RayExecutor

    return RayExecutor(store, execution)
