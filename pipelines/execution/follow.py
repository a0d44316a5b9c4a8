"""Follow a stage's ``metrics.jsonl`` while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.execution.events import StageProgress
from pipelines.store.metrics_log import MetricsTail
from pipelines.study.stage import Stage


class Follower:
    """The progress of one stage since the last look."""

    def __init__(self, stage: Stage, work_folder: Path, folder: Path) -> None:
        self._stage = stage
        self._log = MetricsTail(stage.kind, (work_folder, folder))

    def finished_in(self, folder: Path) -> None:
        """Take note that the stage is finished, and where its files are on this machine."""
        self._log.folders = (folder,)

    def news(self) -> Iterator[StageProgress]:
        """What was logged since the last call, oldest first."""
        for line in self._log.read():
            yield StageProgress(
                stage=self._stage,
                step=line.step,
                total_steps=line.total_steps,
                metrics={name: float(value) for name, value in line.metrics.items() if value is not None},
                split=line.split,
                tokens=line.tokens,
                flops=line.flops,
                time=line.time,
            )
