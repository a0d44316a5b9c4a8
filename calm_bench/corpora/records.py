"""Documents from records with named fields: lines of JSON, rows of Parquet, examples of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calm_bench.corpora.base import CorpusError, Document, Skipped
from calm_bench.corpora.plain_text import BYTE_ORDER_MARK
from calm_bench.registry import did_you_mean

PARQUET_ROWS = 1024


class Records:
    """Takes the text out of one field of many records, and knows whether any record had it."""

    def __init__(self, field: str, skipped: Skipped) -> None:
        self._field = field
        self._skipped = skipped
        self._found = False
        self._other_fields: dict[str, None] = {}

    def json_lines(self, file: Path, name: str) -> Iterator[Document]:
        """One document per line of a .jsonl file, placed at ``file:line``."""
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{name}:{number}"
                raw = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
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

    def parquet_rows(self, file: Path, name: str) -> Iterator[Document]:
        """One document per row of a .parquet file, placed at ``file:row`` counted from 1.

        Raises:
            CorpusError: it is no Parquet file.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as parquet:
                if self._field not in parquet.schema_arrow.names:
                    self._lacking(parquet.schema_arrow.names, f"{name}:1", parquet.metadata.num_rows)
                    return
                row = 0
                for batch in parquet.iter_batches(batch_size=PARQUET_ROWS, columns=[self._field]):
                    for value in batch.column(0):
                        row += 1
                        try:
                            record = {self._field: value.as_py()}
                        except UnicodeDecodeError:
                            self._found = True
                            self._skipped.add("invalid UTF-8", f"{name}:{row}")
                        else:
                            yield from self.text_of(record, f"{name}:{row}")
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise CorpusError(f"{file} is not a readable Parquet file: {error}") from error

    def text_of(self, record: dict[str, Any], where: str) -> Iterator[Document]:
        """The document of one record, or none and a count of why."""
        if self._field not in record:
            self._lacking(record, where)
            return
        self._found = True
        text = record[self._field]
        if isinstance(text, str):
            yield Document(text, where)
        else:
            self._skipped.add(f"field {self._field!r} is no text", where)

    def check(self, source: str) -> None:
        """To be called at the end.

        Raises:
            CorpusError: there were records but none had the field; names the nearest one that they have.
        """
        if self._other_fields and not self._found:
            raise CorpusError(
                f"no record of {source} has the field {self._field!r} (corpus.text_field)"
                f"{did_you_mean(self._field, list(self._other_fields))}"
            )

    def _lacking(self, fields: Any, where: str, count: int = 1) -> None:
        self._other_fields.update(dict.fromkeys(fields))
        self._skipped.add(f"no field {self._field!r}", where, count)
