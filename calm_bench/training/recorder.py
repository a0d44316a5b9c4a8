"""``metrics.jsonl``: what happened during a training, one JSON object a line, appended as it happens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from calm_bench.kept_folders import make_folder

METRICS_FILE = "metrics.jsonl"


class Recorder:
    """Appends records to a file; resuming cuts it back to the checkpoint, so no step is recorded twice."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """Args: ``size``, bytes of an existing file that are still true."""
        make_folder(path.parent)
        self._file = path.open("ab")
        self._file.truncate(size)

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Bring everything to disk; returns the file's size in bytes."""
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


class NullRecorder(Recorder):
    """Records nothing: for the workers of a training beside the one that writes."""

    def __init__(self) -> None:
        pass

    def write(self, record: dict[str, Any]) -> None:
        pass

    def sync(self) -> int:
        return 0

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass
