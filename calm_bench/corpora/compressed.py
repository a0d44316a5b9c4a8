"""Files of text, plain or compressed, read as a stream of bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import Any, cast

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")


def kind_of(file: Path) -> str:
    """The suffix that says how to read a file, in lower case, with that of its compression: ``.jsonl.gz``."""
    last = file.suffix.lower()
    return Path(file.stem).suffix.lower() + last if last in COMPRESSIONS else last


def open_text(file: Path) -> io.BufferedReader:
    """The bytes of a file as they were before compression, without a byte order mark of UTF-8.

    Raises:
        OSError: it cannot be opened or, as for every later read, what :func:`is_damage` tells.
    """
    stream = _open(file)
    try:
        if stream.peek(len(BYTE_ORDER_MARK)).startswith(BYTE_ORDER_MARK):
            stream.read(len(BYTE_ORDER_MARK))
    except BaseException:
        stream.close()
        raise
    return stream


def is_damage(error: Exception) -> bool:
    """Whether reading failed by the compressed bytes themselves, cut off or broken, and not by the file system."""
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, (EOFError, lzma.LZMAError, zlib.error))


def _open(file: Path) -> io.BufferedReader:
    compression = file.suffix.lower()
    stream: Any
    if compression == ".gz":
        stream = gzip.GzipFile(file)
    elif compression == ".xz":
        stream = lzma.LZMAFile(file)  # noqa: SIM115 - the caller closes it
    elif compression == ".bz2":
        stream = bz2.BZ2File(file)
    elif compression == ".zst":
        import pyarrow as pa

        stream = io.BufferedReader(cast(Any, pa.CompressedInputStream(pa.OSFile(str(file)), "zstd")), 2**20)
    else:
        stream = file.open("rb")
    return cast(io.BufferedReader, stream)
