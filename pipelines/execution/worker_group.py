"""Several workers on one training: what they are given, and which stages get them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.study.config import Execution
from pipelines.study.stage_kind import StageKind

GIB = 2**30


@dataclass(frozen=True)
class WorkerGroup:
    """The workers of one stage, with the share of each."""

    size: int
    strategy: Literal["ddp", "fsdp"]
    cpus: float
    gpus: float
    memory: float | None
    """GiB."""
    on_one_node: bool = False
    """Whether they must be where the stage's folder is, since other nodes do not see it."""

    @property
    def resources(self) -> dict[str, float]:
        """Resources of one worker, by Ray's names."""
        found = {"CPU": self.cpus}
        if self.gpus:
            found["GPU"] = self.gpus
        if self.memory is not None:
            found["memory"] = float(int(self.memory * GIB))
        return found


def worker_group_of(kind: StageKind, execution: Execution, on_one_node: bool = False) -> WorkerGroup | None:
    """The workers that stages of ``kind`` get; None for those that one process runs."""
    if execution.workers == 1 or not kind.data_parallel:
        return None
    gpus = execution.gpus_per_stage if kind.uses_device and execution.device != "cpu" else 0.0
    return WorkerGroup(
        execution.workers,
        execution.strategy,
        execution.cpus_per_stage,
        gpus,
        execution.memory_per_stage,
        on_one_node,
    )
