"""The file ``metrics.jsonl`` of a stage: one line for each logged step of a training, and of its validations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from calm_bench.json_text import parse_json_text
from calm_bench.problems import MOST_SHOWN
from pipelines.common.record_file import damaged
from pipelines.study.stage_folder import METRICS_FILE, REMEDY


@dataclass(frozen=True)
class Line:
    """One line of a stage's ``metrics.jsonl``."""

    kind: str
    split: str
    step: int
    flops: float
    """Training FLOPs spent so far."""
    time: float
    """Seconds since the stage's start."""
    metrics: Mapping[str, float]
    tokens: float = 0.0
    """Tokens seen so far."""
    total_steps: int | None = None
    """Steps of the whole stage, where it tells them."""


def line_from(kind: str, row: Mapping[str, Any]) -> Line:
    """The line that a stage of ``kind`` wrote as ``row``."""
    total = row.get("total_steps")
    return Line(
        kind,
        str(row.get("split", "train")),
        int(row["step"]),
        float(row.get("flops", 0.0)),
        float(row.get("time", 0.0)),
        row.get("metrics", {}),
        float(row.get("tokens", 0.0)),
        None if total is None else int(total),
    )


def read_lines(kind: str, folder: Path) -> list[Line]:
    """All whole lines of ``folder/metrics.jsonl``; none where a stage has no such file.

    Raises:
        RecordError: a line is none that a stage writes.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    return [_read(kind, text, path) for text in path.read_bytes().split(b"\n") if text.endswith(b"}")]


def _read(kind: str, text: bytes, path: Path) -> Line:
    try:
        return line_from(kind, parse_json_text(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"{type(error).__name__}: {error} in the line {text[:MOST_SHOWN].decode(errors='replace')!r}"
        raise damaged(path, fault, REMEDY) from error


class MetricsTail:
    """Reads what was added to a stage's log since it last looked.

    Args:
        folders: where the log may lie, tried in this order: the work folder until the stage is finished, the stage's
            own folder afterwards.
    """

    def __init__(self, kind: str, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._kind = kind
        self._offset = 0
        self._last = b""
        """The line before :attr:`_offset`, by which it is known that the log has only grown."""

    def read(self) -> list[Line]:
        """The whole lines added since the last call, oldest first; a half-written last line waits for the next call.

        A resumed stage cuts its log back to its checkpoint. Where it has logged beyond the former end by now, all lines
        are told again: what was added cannot be told from what was there.
        """
        for folder in self.folders:
            try:
                with (folder / METRICS_FILE).open("rb") as file:
                    self._find_offset(file)
                    content = file.read()
            except (FileNotFoundError, NotADirectoryError):
                continue
            whole = content[: content.rfind(b"\n") + 1]
            self._offset += len(whole)
            lines = whole.splitlines(keepends=True)
            self._last = lines[-1] if lines else self._last
            return [_read(self._kind, text, folder / METRICS_FILE) for text in lines]
        return []

    def rewind(self) -> None:
        """Tell all lines again at the next call."""
        self._offset, self._last = 0, b""

    def _find_offset(self, file: BinaryIO) -> None:
        """Go to the first byte of ``file`` that was not read yet."""
        size = file.seek(0, 2)
        if size < self._offset:
            self._offset, self._last = size, b""
        file.seek(self._offset - len(self._last))
        if file.read(len(self._last)) != self._last:
            self.rewind()
            file.seek(0)
