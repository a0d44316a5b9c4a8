"""Ids of bytes, which are the text itself: read from a corpus when they are packed, and kept in no file before.

Twice as many bytes as there is text would be written, hashed and read again otherwise, which is all the work there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from calm_bench.array_files import append_array
from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.split_files import text_bounds
from calm_bench.tokens.byte_tokenizer import ByteTokenizer


def write_byte_ends(columns: Iterable[Any], file: IO[bytes]) -> dict[str, Any]:
    """Write the position after each document's EOS into ``file``, of texts in the columns of a corpus.

    Returns:
        ``tokens``, ``documents`` and ``bytes`` of all of them.
    """
    tokens = documents = 0
    for column in columns:
        bounds = text_bounds(column)
        append_array(file, bounds[1:] - bounds[0] + np.arange(1, len(bounds)) + tokens)
        tokens += int(bounds[-1] - bounds[0]) + len(column)
        documents += len(column)
    return {"tokens": tokens, "documents": documents, "bytes": tokens - documents}


def read_byte_ids(columns: Iterable[Any], start: int, out: npt.NDArray[Any]) -> None:
    """Fill ``out`` with the ids of all texts in ``columns`` from position ``start`` on.

    Raises:
        CorpusError: there are not so many.
    """
    stop, position = start + len(out), 0
    for column in columns:
        bounds = text_bounds(column)
        count = int(bounds[-1] - bounds[0]) + len(column)
        begin, end = max(start, position), min(stop, position + count)
        if begin < end:
            _copy(column, bounds, begin - position, out[begin - start : end - start])
        position += count
        if position >= stop:
            return
    raise CorpusError(f"a part of a corpus has {position} bytes and ends of documents, and not {stop}: it has changed")


def _copy(column: Any, bounds: npt.NDArray[np.int64], start: int, out: npt.NDArray[Any]) -> None:
    """Fill ``out`` with the ids of one column from position ``start`` on."""
    # A byte for each EOS to overwrite.
    together = b"\xff".join([*column.view(pa.binary()).to_pylist(), b""])
    out[:] = np.frombuffer(together, np.uint8)[start : start + len(out)]
    ends = bounds[1:] - bounds[0] + np.arange(len(column)) - start
    out[ends[(ends >= 0) & (ends < len(out))]] = ByteTokenizer.eos_id
