"""The files of a corpus in parts of about equal size, by which several processes read it.

Parts follow from the files alone: how many processes there are, and how fast each is, changes neither the parts nor
their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from calm_bench.corpora.records import ARROW_FILE

PART_BYTES = 64 * 2**20
"""A part of a corpus holds about so much of its input: a second or two of work. A plain text that is longer has borders
of documents at those of parts, so it enters the identity of such a corpus (``LocalFiles.dependencies``)."""
BORDER_BYTES = 2**20
"""So far behind its place a border in plain text is looked for, for a better one than the next end of a line."""


@dataclass(frozen=True)
class Span:
    """A file of a corpus, or a piece of one."""

    name: str
    """Path relative to the source."""
    size: int
    """Bytes of input, about."""
    start: int = 0
    stop: int | None = None
    """Bytes of a text, row groups of a Parquet file, record batches of an Arrow file; None is the end."""
    problem: str = ""
    """Why the file is not read."""
    modified: int = 0
    """When the file was last changed, in nanoseconds: a part that was read before then is read again."""

    @property
    def place(self) -> str:
        """Its name among places of documents, where lines and rows are counted from the span's beginning."""
        return f"{self.name}@{self.start}" if self.start else self.name


def pack(spans: Iterable[Span]) -> Iterator[tuple[Span, ...]]:
    """Neighbouring spans together, up to ``PART_BYTES``; one that is larger is alone."""
    waiting: list[Span] = []
    size = 0
    for span in spans:
        if waiting and size + span.size > PART_BYTES:
            yield tuple(waiting)
            waiting, size = [], 0
        waiting.append(span)
        size += span.size
    if waiting:
        yield tuple(waiting)


def spans_of(file: Path, name: str, kind: str) -> Iterator[Span]:
    """A file as spans of about ``PART_BYTES`` each, or as one where its format must be read from its beginning.

    Args:
        kind: as :func:`calm_bench.corpora.compressed.kind_of` gives it.

    Raises:
        OSError: it cannot be read.
    """
    status = file.stat()
    whole = Span(name, status.st_size, modified=status.st_mtime_ns)
    if kind == ".parquet":
        yield from _numbered(whole, _parquet_sizes(file))
    elif whole.size > PART_BYTES and kind in (".txt", ".jsonl"):
        yield from _of_lines(file, whole, is_prose=kind == ".txt")
    elif whole.size > PART_BYTES and kind == ".arrow":
        batches = _num_batches(file)
        yield from _numbered(whole, [whole.size / batches] * batches)
    else:
        yield whole


def _of_lines(file: Path, whole: Span, is_prose: bool) -> Iterator[Span]:
    start = 0
    with file.open("rb") as stream:
        while start < whole.size:
            stop = whole.size
            if start + PART_BYTES < whole.size:
                stop = _border(stream, start + PART_BYTES, is_prose)
            yield replace(whole, size=stop - start, start=start, stop=None if stop == whole.size else stop)
            start = stop


def _border(stream: IO[bytes], offset: int, is_prose: bool) -> int:
    """Where a line begins at or behind ``offset``; in prose rather where a paragraph does, or else a word."""
    stream.seek(offset)
    if is_prose:
        window = stream.read(BORDER_BYTES)
        for end in (b"\n\n", b"\n\r\n", b"\n", b" "):
            if (found := window.find(end)) >= 0:
                return offset + found + len(end)
    position = offset
    stream.seek(offset)
    while piece := stream.read(BORDER_BYTES):
        if (found := piece.find(b"\n")) >= 0:
            return position + found + 1
        position += len(piece)
    return position


def _numbered(whole: Span, sizes: list[float]) -> Iterator[Span]:
    """Spans of the numbered pieces of a file, row groups or record batches, of these sizes."""
    first, size = 0, 0.0
    for number, added in enumerate(sizes):
        if number > first and size + added > PART_BYTES:
            yield replace(whole, size=round(size), start=first, stop=number)
            first, size = number, 0.0
        size += added
    yield replace(whole, size=round(size) if sizes else whole.size, start=first)


def _parquet_sizes(file: Path) -> list[float]:
    """Bytes of each row group before compression; none where its reader will say what is wrong with the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            groups = range(parquet.num_row_groups)
            return [float(parquet.metadata.row_group(group).total_byte_size) for group in groups]
    except pa.ArrowException:
        return []


def _num_batches(file: Path) -> int:
    """Record batches of an Arrow file; one where it is a stream, or its reader will say what is wrong with it."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as mapped:
            if mapped.read(len(ARROW_FILE)) != ARROW_FILE:
                return 1
            return max(1, int(pa.ipc.open_file(mapped).num_record_batches))
    except (pa.ArrowException, OSError):
        return 1
