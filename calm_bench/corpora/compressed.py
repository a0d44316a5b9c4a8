"""Files of text, plain or compressed, read as a stream of bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import Any, cast

from calm_bench.corpora.input_file import InputFile

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UNPACKED_BYTES = 2**17


def open_text(file: InputFile, start: int = 0, stop: int | None = None) -> io.BufferedReader:
    """The bytes of a file as they were before compression, without a byte order mark of UTF-8.

    Args:
        start, stop: the bytes of an uncompressed file that are wanted; all where they are not given.

    Raises:
        OSError: it cannot be opened or, as for every later read, what :func:`is_damage` tells.
    """
    is_whole = not start and stop is None
    stream = _open(file) if is_whole else _buffered(ByteRange(file, start, stop), file.buffer_bytes)
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

    def __init__(self, file: InputFile, start: int, stop: int | None) -> None:
        self._file = file.open(start)
        self._left = None if stop is None else stop - start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: self._left]
        count = cast(Any, self._file).readinto(wanted) or 0
        if self._left is not None:
            self._left -= count
        return int(count)

    def close(self) -> None:
        self._file.close()
        super().close()


class Unpacked(io.RawIOBase):
    """What a decompressor makes of a file; closing it closes both."""

    def __init__(self, decompressor: Any, file: io.BufferedReader) -> None:
        self._decompressor = decompressor
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # One read of the decompressor: what comes before damage is handed on before the damage is met.
        return int(self._decompressor.readinto1(buffer))

    def close(self) -> None:
        self._decompressor.close()
        self._file.close()
        super().close()


def _open(file: InputFile) -> io.BufferedReader:
    packed = _buffered(file.open(), file.buffer_bytes)
    compression = Path(file.name).suffix.lower()
    if compression == ".zst":
        import pyarrow as pa

        # Of a read that meets damage all is lost.
        return _buffered(pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd"), UNPACKED_BYTES)
    if compression in (".gz", ".xz", ".bz2"):
        opened: Any = {".gz": gzip.GzipFile, ".xz": lzma.LZMAFile, ".bz2": bz2.BZ2File}[compression]
        decompressor = opened(fileobj=packed) if compression == ".gz" else opened(packed)
        return _buffered(Unpacked(decompressor, packed), UNPACKED_BYTES)
    return packed


def _buffered(raw: Any, num_bytes: int) -> io.BufferedReader:
    return io.BufferedReader(raw, num_bytes)
