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


def open_text(file: Path, start: int = 0, stop: int | None = None) -> io.BufferedReader:
    """The bytes of a file as they were before compression, without a byte order mark of UTF-8.

    Args:
        start, stop: the bytes of an uncompressed file that are wanted; all where they are not given.

    Raises:
        OSError: it cannot be opened or, as for every later read, what :func:`is_damage` tells.
    """
    is_whole = not start and stop is None
    stream = _open(file) if is_whole else cast(io.BufferedReader, io.BufferedReader(ByteRange(file, start, stop)))
    try:
        if not start and stream.peek(len(BYTE_ORDER_MARK)).startswith(BYTE_ORDER_MARK):
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


class ByteRange(io.RawIOBase):
    """The bytes of a file from ``start`` to before ``stop``, or to its end."""

    def __init__(self, file: Path, start: int, stop: int | None) -> None:
        self._file = file.open("rb", buffering=0)
        self._file.seek(start)
        self._left = None if stop is None else stop - start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: self._left]
        count = self._file.readinto(wanted) or 0
        if self._left is not None:
            self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


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
