"""The parts of one stage's work on Ray Data, by as many workers as the study may have."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pipelines.execution.environment import environment
from pipelines.execution.failures import WorkerFailed, kernel_kills
from pipelines.execution.ray_train import THREADS, lost_worker, this_node
from pipelines.execution.same_code import DriverCode, call_checked, pickled
from pipelines.execution.worker_group import GIB, WorkerGroup
from pipelines.study.config import Execution

Part = TypeVar("Part")
Found = TypeVar("Found")

LOST_WORKERS = 3
"""How often a part is given to another worker whose own was lost, before the stage is tried again from its parts."""
ALONE = {"TOKENIZERS_PARALLELISM": "false"}
"""One thread for each of several parts: a tokenizer would take all the cores of the machine for itself."""


@dataclass(frozen=True)
class PartWorkers:
    """What the workers of a stage's parts are given. A :class:`calm_bench.published_parts.PartMapper` in a worker.

    The stage itself takes no CPU: on a cluster with one, nobody could begin a part otherwise.
    """

    cpus: float
    """Of each worker."""
    memory: float | None
    """GiB of each worker."""
    most: int | None
    """How many there are at once; None is as many as the cluster has room for."""
    on_one_node: bool
    """Whether they must be where the stage's folder is, since other nodes do not see it."""

    @classmethod
    def of(cls, execution: Execution, on_one_node: bool) -> PartWorkers:
        """What ``execution`` grants: a part uses one CPU, and takes less of Ray where stages do."""
        cpus = min(1.0, execution.cpus_per_stage)
        return cls(cpus, execution.memory_per_stage, execution.max_parallel, on_one_node)

    @property
    def group(self) -> WorkerGroup:
        """One of them, for whoever looks for a node that has room for it."""
        return WorkerGroup(1, "ddp", self.cpus, 0.0, self.memory, self.on_one_node)

    def __call__(self, work: Callable[[Part], Found], parts: Sequence[Part]) -> Generator[Found, None, None]:
        """
        Raises:
            WorkerFailed: a part failed, or its workers were lost again and again.
            ExecutorError: a worker has other code than this process.
        """
        if not parts:
            return
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        code = DriverCode.here()
        threads = ALONE if len(parts) > 1 else {}
        rows = [{"call": pickled(_done, work, part, threads)} for part in parts]
        # A part is a block, and with it a task: those that are done are published whatever becomes of the others.
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            partial(_in_worker, code),
            num_cpus=self.cpus,
            memory=None if self.memory is None else self.memory * GIB,
            compute=ray.data.TaskPoolStrategy(self.most),
            label_selector={"ray.io/node-id": this_node()} if self.on_one_node else None,
            max_retries=LOST_WORKERS,
        )
        kills_before = kernel_kills()
        try:
            for row in done.iter_rows():
                yield _found(row["found"])
        except ray.exceptions.RayError as error:
            raise lost_worker(f"the worker of a part was lost: {error}", error, kills_before) from error


def _in_worker(code: DriverCode, row: dict[str, Any]) -> dict[str, Any]:
    """A part, and what came of it as bytes: Ray Data keeps rows of simple values, and would wrap what is raised."""
    os.environ.update(THREADS)
    return {"found": pickle.dumps(call_checked(code, row["call"]))}


def _done(work: Callable[[Any], Any], part: Any, threads: Mapping[str, str]) -> Any:
    try:
        with environment(threads):
            return work(part)
    except Exception as error:
        return WorkerFailed.of(error)


def _found(answer: bytes) -> Any:
    found = pickle.loads(answer)
    if isinstance(found, Exception):
        raise found
    return found
