"""Follow a stage's ``metrics.jsonl`` while it grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.execution.events import StageProgress
from pipelines.study.stage import Stage
from pipelines.study.stage_folder import METRICS_FILE


class Follower:
    """Reads the lines added to the metrics of one stage since the last look.

    The file lies in the work folder until the stage is finished and in the stage folder afterwards.
    """

    def __init__(self, stage: Stage, work_folder: Path, folder: Path) -> None:
        self._stage = stage
        self._paths: tuple[Path, ...] = (work_folder / METRICS_FILE, folder / METRICS_FILE)
        self._offset = 0

    def finished_in(self, folder: Path) -> None:
        """Take note that the stage is finished, and where its files are on this machine."""
        self._paths = (folder / METRICS_FILE,)

    def news(self) -> Iterator[StageProgress]:
        """The records written since the last call, oldest first; a half-written last line waits for the next call."""
        for record in self._new_lines():
            total = record.get("total_steps")
            yield StageProgress(
                stage=self._stage,
                step=int(record["step"]),
                total_steps=None if total is None else int(total),
                metrics={name: float(value) for name, value in record.get("metrics", {}).items()},
                split=str(record.get("split", "train")),
                tokens=float(record.get("tokens", 0.0)),
                flops=float(record.get("flops", 0.0)),
                time=float(record.get("time", 0.0)),
            )

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        for path in self._paths:
            try:
                with path.open("rb") as file:
                    size = file.seek(0, 2)
                    # A resumed stage cuts the file back to its checkpoint.
                    self._offset = min(self._offset, size)
                    file.seek(self._offset)
                    content = file.read()
            except FileNotFoundError:
                continue
            whole = content[: content.rfind(b"\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    # The cut fell between two looks, so this line starts in the middle of another.
                    continue
            return
