"""Documents from records with named fields: JSON, rows of CSV, Parquet and Arrow, examples of a data set."""

from __future__ import annotations

import io
import json
from bisect import bisect_left
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from calm_bench.config import NO_FILTERS, Quality
from calm_bench.corpora.base import CorpusError, Document, Skipped
from calm_bench.corpora.compressed import open_text
from calm_bench.corpora.csv_rows import csv_rows, header_of
from calm_bench.corpora.input_file import InputFile, while_whole
from calm_bench.corpora.json_values import BrokenJSONError, TooLong, json_values

PARQUET_ROWS = 1024
PARQUET_BYTES = 16 * 2**20
"""Of text that is held together, on average: so many rows, and ``PARQUET_ROWS`` at most."""
FEW_ROWS = 32
"""So few rows, of half a megabyte and more, are read one by one."""
ARROW_FILE = b"ARROW1"
OTHER_LANGUAGE = "another language (quality.languages)"
TOO_LONG = "document above max_document_bytes"
OPEN_QUOTE = "quote that never closes, the rest of its file unread"
TOO_MANY = "row of more values than names"
"""Commas of its text may stand there without quotes."""
SEPARATORS = (";", "\t", "|")
"""What stands between fields of CSV files where a comma is part of numbers."""
BYTES_PER_ESCAPED_BYTE = 6
"""A byte of text is written in JSON with at most these many: ``\\u0041``."""
OTHER_FIELDS_BYTES = 2**20
"""What the line of a document that is short enough may hold beside it."""


class Records:
    """Takes the text out of one field of many records, and notes in ``skipped`` whether any record had it."""

    def __init__(
        self, field: str, skipped: Skipped, max_document_bytes: int | None = None, quality: Quality = NO_FILTERS
    ) -> None:
        self._field = field
        self._language_field = quality.language_field
        self._languages = frozenset(quality.languages)
        self._skipped = skipped
        self._longest_text = max_document_bytes
        self._longest_record = (
            None if max_document_bytes is None else BYTES_PER_ESCAPED_BYTE * max_document_bytes + OTHER_FIELDS_BYTES
        )

    def json_lines(self, file: InputFile, name: str, start: int = 0, stop: int | None = None) -> Iterator[Document]:
        """One document per line of a .jsonl file, placed at ``file:line``.

        A line too long for a document of ``max_document_bytes`` is passed over without being held.

        Args:
            start, stop: the bytes to be read, of which ``start`` begins a line; all where they are not given.
        """
        with open_text(file, start, stop) as lines:
            for number, raw in enumerate(_lines(lines, self._longest_record), start=1):
                where = f"{name}:{number}"
                if raw is None:
                    self._skipped.add(TOO_LONG, where)
                    continue
                try:
                    record = json.loads(raw.decode())
                except UnicodeDecodeError:
                    self._skipped.add("invalid UTF-8", where)
                except (ValueError, RecursionError):
                    self._skipped.add("broken JSON line" if raw.strip() else "empty line", where)
                else:
                    if isinstance(record, dict):
                        yield from self.text_of(record, where)
                    else:
                        self._skipped.add("JSON line that is no object", where)

    def json_records(self, file: InputFile, name: str) -> Iterator[Document]:
        """One document per element of the array in a .json file, or per value in it, placed at ``file:element``.

        An element too long for a document of ``max_document_bytes`` is passed over without being held.
        """
        number = 0
        with open_text(file) as stream:
            try:
                for number, record in enumerate(json_values(stream, self._longest_record), start=1):
                    if record is TooLong:
                        self._skipped.add(TOO_LONG, f"{name}:{number}")
                    elif isinstance(record, dict):
                        yield from self.text_of(record, f"{name}:{number}")
                    else:
                        self._skipped.add("JSON value that is no object", f"{name}:{number}")
            except BrokenJSONError:
                self._skipped.add("broken JSON, the rest of its file unread", f"{name}:{number + 1}")

    def csv_rows(self, file: InputFile, name: str) -> Iterator[Document]:
        """One document per row of a .csv file, placed at the row's last line. The first line that is not blank names
        the fields.

        A row too long for a document of ``max_document_bytes`` is passed over without being held.
        """
        with io.TextIOWrapper(open_text(file), "utf-8", "surrogateescape", newline="") as text:
            rows = csv_rows(text, self._longest_record)
            header = header_of(rows)
            self._check_header(file, header)
            for values, line, is_whole in rows:
                if values is None:
                    self._skipped.add(TOO_LONG, f"{name}:{line}")
                elif not is_whole:
                    self._skipped.add(OPEN_QUOTE, f"{name}:{line}")
                elif len(values) > len(header):
                    self._skipped.add(TOO_MANY, f"{name}:{line}")
                elif values:
                    yield from self.text_of(dict(zip(header, values, strict=False)), f"{name}:{line}")

    def _check_header(self, file: InputFile, header: list[str]) -> None:
        """
        Raises:
            CorpusError: the field is named twice, or the names are separated by something else than commas.
        """
        if header.count(self._field) > 1:
            raise CorpusError(f"{file} names the field {self._field!r} {header.count(self._field)} times: keep one")
        if len(header) == 1 and self._field != header[0]:
            for sign in SEPARATORS:
                if sign in header[0]:
                    raise CorpusError(
                        f"{file} separates its fields by {sign!r}, and CSV is read by commas: python -c 'import csv, "
                        f"sys; csv.writer(sys.stdout).writerows(csv.reader(sys.stdin, delimiter={json.dumps(sign)}))' "
                        "< OLD > NEW writes it so"
                    )

    def parquet_rows(
        self, file: InputFile, name: str, start: int = 0, stop: int | None = None, by_bytes: bool = False
    ) -> Iterator[Document]:
        """One document per row of a .parquet file, placed at ``file:row`` counted from 1.

        Args:
            start, stop: the row groups to be read; all where they are not given.
            by_bytes: ``start`` and ``stop`` are bytes of the file, and the row groups that begin there are read.

        Raises:
            CorpusError: it is no Parquet file.
        """
        import pyarrow as pa

        try:
            with file.open_arrow(mapped=False) as opened, _parquet(opened, file.buffer_bytes) as parquet:
                if by_bytes:
                    groups = _groups_between(parquet, start, stop)
                else:
                    groups = range(parquet.num_row_groups)[start:stop]
                first = _num_rows(parquet, range(groups.start))
                if self._field not in parquet.schema_arrow.names:
                    self._lacking(parquet.schema_arrow.names, f"{name}:{first + 1}", _num_rows(parquet, groups))
                    return
                columns = [column for column in self._columns if column in parquet.schema_arrow.names]
                names = parquet.schema_arrow.names
                is_text = _is_text(parquet.schema_arrow.field(names.index(self._field)).type)
                for group in groups:
                    described = parquet.metadata.row_group(group)
                    if is_text and self._is_one_long_row(described):
                        self._skipped.has_field = True
                        self._skipped.add(TOO_LONG, f"{name}:{first + 1}")
                    else:
                        rows = _rows_at_once(described, columns)
                        yield from self._values(parquet.iter_batches(rows, [group], columns), name, first)
                    first += described.num_rows
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise CorpusError(f"{file} is not a readable Parquet file: {error}") from error

    def arrow_rows(self, file: InputFile, name: str, start: int = 0, stop: int | None = None) -> Iterator[Document]:
        """One document per row of an .arrow file, in the file or the stream format, placed at ``file:row``.

        Args:
            start, stop: the record batches to be read, in the file format; all where they are not given. Rows are
                counted from the first of them.

        Raises:
            CorpusError: it is no Arrow file, or became shorter meanwhile.
        """
        import pyarrow as pa

        size = file.size
        try:
            with file.open_arrow() as mapped:
                if mapped.read(len(ARROW_FILE)) == ARROW_FILE:
                    opened = pa.ipc.open_file(mapped)
                    wanted = range(opened.num_record_batches)[start:stop]
                    batches = (opened.get_batch(index) for index in wanted)
                else:
                    mapped.seek(0)
                    opened = pa.ipc.open_stream(mapped)
                    batches = iter(opened)
                if self._field not in opened.schema.names:
                    self._lacking(opened.schema.names, f"{name}:1", sum(batch.num_rows for batch in batches))
                    return
                columns = [column for column in self._columns if column in opened.schema.names]
                pieces = while_whole(file, size, batches)
                yield from self._values((piece.select(columns) for piece in pieces), name)
        except (pa.ArrowException, OSError) as error:
            raise CorpusError(f"{file} is not a readable Arrow file: {error}") from error

    def _is_one_long_row(self, row_group: Any) -> bool:
        """Whether a row group of Parquet is a single text above the limit, by its description.

        A chunk holds a text once, and some writers put it into its statistics as the least and as the largest too.
        """
        if self._longest_text is None or row_group.num_rows != 1:
            return False
        return _bytes_of(row_group, [self._field]) > 4 * self._longest_text + OTHER_FIELDS_BYTES

    @property
    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for name in (self._field, self._language_field) if name is not None))

    def _values(self, batches: Iterator[Any], name: str, row: int = 0) -> Iterator[Document]:
        """The texts in ``batches``, which have the wanted columns and come after ``row`` rows."""
        for batch in batches:
            names = batch.schema.names
            too_long = _longer_than(self._longest_text, batch.column(names.index(self._field)))
            columns = batch.columns
            for index in range(batch.num_rows):
                row += 1
                if too_long[index]:  # not looked at, since a value that is taken out of its column is a copy
                    self._skipped.has_field = True
                    self._skipped.add(TOO_LONG, f"{name}:{row}")
                    continue
                try:
                    record = {column: values[index].as_py() for column, values in zip(names, columns, strict=True)}
                except UnicodeDecodeError:
                    self._skipped.has_field = True
                    self._skipped.add("invalid UTF-8", f"{name}:{row}")
                else:
                    yield from self.text_of(record, f"{name}:{row}")

    def text_of(self, record: dict[str, Any], where: str) -> Iterator[Document]:
        """The document of one record, or none and a count of why."""
        if self._field not in record:
            self._lacking(record, where)
            return
        self._skipped.has_field = True
        text = record[self._field]
        if not isinstance(text, str):
            self._skipped.add(f"field {self._field!r} is no text", where)
        elif self._language_field is not None and self._language_field not in record:
            self._skipped.add(f"no field {self._language_field!r}", where)
        elif self._language_field is not None and not self._is_wanted(record[self._language_field]):
            self._skipped.add(OTHER_LANGUAGE, where)
        else:
            yield Document(text, where)

    def _is_wanted(self, language: Any) -> bool:
        # A list or an object, which no set can be asked for, is no language.
        return isinstance(language, str) and language in self._languages

    def _lacking(self, fields: Any, where: str, count: int = 1) -> None:
        self._skipped.note_other_fields(fields)
        self._skipped.add(f"no field {self._field!r}", where, count)


def _rows_at_once(row_group: Any, columns: list[str]) -> int:
    """Rows of a Parquet file that are held together."""
    num_bytes = max(1, _bytes_of(row_group, columns))
    rows = min(PARQUET_ROWS, PARQUET_BYTES * int(row_group.num_rows) // num_bytes)
    # A long row by itself takes a copy less than among others.
    return rows if rows > FEW_ROWS else 1


def _bytes_of(row_group: Any, columns: list[str]) -> int:
    """Bytes of these columns before compression."""
    chunks = (row_group.column(number) for number in range(row_group.num_columns))
    return sum(int(chunk.total_uncompressed_size) for chunk in chunks if chunk.path_in_schema in columns)


def _parquet(opened: Any, buffer_bytes: int) -> Any:
    """A Parquet file of which no more than a page of each column and a buffer are held, however long a row group is."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(opened, pre_buffer=False, buffer_size=buffer_bytes)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _longer_than(limit: int | None, column: Any) -> Any:
    """Of each text of a column whether it has more bytes, told without reading it."""
    import pyarrow.compute as pc

    if limit is None or not _is_text(column.type):
        return np.zeros(len(column), np.bool_)
    lengths = pc.binary_length(column).fill_null(0)
    return lengths.to_numpy(zero_copy_only=False) > limit


def _groups_between(parquet: Any, start: int, stop: int | None) -> range:
    """The row groups that begin at a byte from ``start`` to before ``stop``."""
    begins = [_begin(parquet.metadata.row_group(group)) for group in range(parquet.num_row_groups)]
    first = bisect_left(begins, start)
    return range(first, len(begins) if stop is None else bisect_left(begins, stop))


def _begin(row_group: Any) -> int:
    first = row_group.column(0)
    return int(first.data_page_offset if first.dictionary_page_offset is None else first.dictionary_page_offset)


def _num_rows(parquet: Any, groups: range) -> int:
    return sum(parquet.metadata.row_group(group).num_rows for group in groups)


def _lines(stream: IO[bytes], longest: int | None) -> Iterator[bytes | None]:
    """The lines of a stream; None for one of more than ``longest`` bytes, which is read piece by piece."""
    limit = -1 if longest is None else longest + 1
    while line := stream.readline(limit):
        if len(line) != limit or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(limit)
        yield None
