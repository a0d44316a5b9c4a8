"""Training logs read as they grow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.store.metrics_log import Line, line_from
from pipelines.tracking.times import StagePlace


class LineReader:
    """The lines of one stage's ``metrics.jsonl``, those once more that a resumed training has written anew."""

    def __init__(self, place: StagePlace) -> None:
        self._place = place
        self._offset = 0
        self._last = b""
        """The line before the offset, by which a file that was cut back and grew again is known."""

    def new(self) -> Iterator[Line]:
        """What no earlier call has given, oldest first; a half-written last line waits for the next call."""
        # It lies in the work folder until the stage is finished, which may be between two looks.
        for folder in (self._place.work, self._place.finished):
            try:
                file = (folder / "metrics.jsonl").open("rb")
            except (FileNotFoundError, NotADirectoryError):
                continue
            with file:
                yield from self._read(file)
            return

    def _read(self, file: BinaryIO) -> Iterator[Line]:
        file.seek(self._offset - len(self._last))
        if file.read(len(self._last)) != self._last:
            self._offset, self._last = 0, b""
            file.seek(0)
        for text in file:
            if not text.endswith(b"\n"):
                return
            self._offset += len(text)
            self._last = text
            yield line_from(self._place.kind, json.loads(text))
