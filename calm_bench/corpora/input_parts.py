"""The files of a corpus in parts of about equal size, by which several processes read it.

Parts follow from the files alone: how many processes there are, and how fast each is, changes neither the parts nor
their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import RawIOBase
from itertools import pairwise

from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.input_file import InputFile, format_of, is_compressed
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
    version: int | str = 0
    """Of the file: a part that was read of another one is read again."""
    by_bytes: bool = False
    """Whether ``start`` and ``stop`` of a Parquet file are bytes, between which a row group begins."""

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


def spans_of(file: InputFile) -> Iterator[Span]:
    """A file as spans of about ``PART_BYTES`` each, or as one where its format must be read from its beginning.

    Raises:
        OSError: it cannot be read.
        CorpusError: it is too long for a server without ranges.
    """
    whole = Span(file.name, file.size, version=file.version)
    kind = "" if is_compressed(file.name) else format_of(file.name)
    if kind == ".parquet":
        yield from _by_bytes(whole) if file.is_remote else _numbered(whole, _parquet_sizes(file))
    elif whole.size <= PART_BYTES or kind not in (".txt", ".jsonl", ".arrow"):
        yield whole
    elif not file.has_ranges:
        if kind == ".txt":
            # Read whole it would be cut into other documents than by a server that is the same but for its ranges.
            raise CorpusError(f"the server of {file} gives no ranges of bytes, which a text so long needs: download it")
        yield whole
    elif kind == ".arrow":
        batches = _num_batches(file)
        yield from _numbered(whole, [whole.size / batches] * batches)
    else:
        yield from _of_lines(file, whole, is_prose=kind == ".txt")


def _by_bytes(whole: Span) -> Iterator[Span]:
    """Spans of a Parquet file whose row groups nobody has asked for yet."""
    count = max(1, round(whole.size / PART_BYTES))
    borders = [whole.size * number // count for number in range(count + 1)]
    for start, stop in pairwise(borders):
        yield replace(whole, size=stop - start, start=start, stop=None if stop == whole.size else stop, by_bytes=True)


def _of_lines(file: InputFile, whole: Span, is_prose: bool) -> Iterator[Span]:
    start = 0
    with file.open() as stream:
        while start < whole.size:
            stop = whole.size
            if start + PART_BYTES < whole.size:
                stop = _border(stream, start + PART_BYTES, is_prose)
            yield replace(whole, size=stop - start, start=start, stop=None if stop == whole.size else stop)
            start = stop


def _border(stream: RawIOBase, offset: int, is_prose: bool) -> int:
    """Where a line begins at or behind ``offset``; in prose rather where a paragraph does, or else a word."""
    stream.seek(offset)
    if is_prose:
        window = stream.read(BORDER_BYTES) or b""
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


def _parquet_sizes(file: InputFile) -> list[float]:
    """Bytes of each row group before compression; none where its reader will say what is wrong with the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open_arrow() as opened, pq.ParquetFile(opened) as parquet:
            groups = range(parquet.num_row_groups)
            return [float(parquet.metadata.row_group(group).total_byte_size) for group in groups]
    except pa.ArrowException:
        return []


def _num_batches(file: InputFile) -> int:
    """Record batches of an Arrow file; one where it is a stream, or its reader will say what is wrong with it."""
    import pyarrow as pa

    try:
        with file.open_arrow() as mapped:
            if mapped.read(len(ARROW_FILE)) != ARROW_FILE:
                return 1
            return max(1, int(pa.ipc.open_file(mapped).num_record_batches))
    except (pa.ArrowException, OSError):
        return 1
