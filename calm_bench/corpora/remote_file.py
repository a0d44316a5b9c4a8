"""A file at an address, read by requests for ranges of its bytes through fsspec."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from calm_bench import first_answer as answering
from calm_bench.corpora.base import CorpusAway, CorpusError
from calm_bench.first_answer import NoAnswer, first_answer

T = TypeVar("T")

PAUSES_S = (1.0, 4.0, 15.0)
"""Before each further try of a request that failed, after those that the implementation makes itself."""
REQUEST_BYTES = 8 * 2**20
VERSIONS = (
    "lfs", "blob_id", "sha256", "generation", "VersionId", "md5Hash", "content_md5", "Content-MD5", "ETag", "etag",
    "e_tag", "Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created",
)  # fmt: skip
"""What implementations call that by which a place tells another content of a name, the surest first."""
FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, ImportError)
"""What another try would not change."""
_ANSWERED: set[str] = set()
"""Places that this process has had an answer of, be it an error."""
BUSY = (408, 425, 429)
"""Answers of HTTP that ask for another try."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as a listing or its own head shows it.

    Raises of its methods: CorpusError where the place does not answer, or has no such file.
    """

    url: str
    name: str
    size: int
    version: str

    def __str__(self) -> str:
        return self.url

    @property
    def buffer_bytes(self) -> int:
        return REQUEST_BYTES

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def has_ranges(self) -> bool:
        if not self.url.startswith("http"):
            return True
        with self.open(self.size - 1) as opened:
            return bool(opened.read(1)) and not opened.is_sequential

    def open(self, start: int = 0) -> RemoteBytes:
        return RemoteBytes(self.url, self.size, start)

    def open_arrow(self, mapped: bool = True) -> AbstractContextManager[Any]:
        import pyarrow as pa

        opened: AbstractContextManager[Any] = pa.PythonFile(RemoteBytes(self.url, self.size, 0, needs_ranges=True), "r")
        return opened


class RemoteBytes(io.RawIOBase):
    """The bytes of a file at an address from ``start`` on; every read is one request.

    A server of HTTP that knows no ranges is read from the beginning, which gives what comes first away.

    Args:
        needs_ranges: refuse such a server.

    Raises:
        CorpusError: the file is not there, or the place fails again and again; so may every read.
    """

    def __init__(self, url: str, size: int, start: int, needs_ranges: bool = False) -> None:
        self._url = url
        self._size = size
        self._at = start
        self._needs_ranges = needs_ranges
        self._opened: Any = None
        self.is_sequential = False
        """Whether the server turned out to know no ranges."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if self.is_sequential and position != self._at:
            self._let_go()
        self._at = position
        return position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        read: bytes = ask(self._url, lambda: self._read(wanted))
        if not read:
            raise CorpusError(f"{self._url} ends after {self._at} of its {self._size} bytes: it has changed, run again")
        buffer[: len(read)] = read
        self._at += len(read)
        return len(read)

    def close(self) -> None:
        self._let_go()
        super().close()

    def _read(self, wanted: int) -> bytes:
        try:
            if self.is_sequential:
                return self._read_on(wanted)
            try:
                found: bytes = self._ranges().read(wanted)
                return found
            except ValueError as error:
                # What fsspec raises where a server sends all of a file instead of a range.
                if self._needs_ranges:
                    raise CorpusError(
                        f"the server of {self._url} gives no ranges of bytes, which its format needs: download it"
                    ) from error
                self._let_go()
                self.is_sequential = True
                return self._read_on(wanted)
        except BaseException:
            self._let_go()
            raise

    def _ranges(self) -> Any:
        if self._opened is None:
            files, path = file_system(self._url)
            self._opened = files.open(path, "rb", cache_type="none", size=self._size)
        self._opened.seek(self._at)
        return self._opened

    def _read_on(self, wanted: int) -> bytes:
        if self._opened is None:
            files, path = file_system(self._url)
            self._opened = files.open(path, "rb", block_size=0)
            left = self._at
            while left:
                read = len(self._opened.read(min(left, REQUEST_BYTES)))
                if not read:
                    return b""
                left -= read
        found: bytes = self._opened.read(wanted)
        return found

    def _let_go(self) -> None:
        if self._opened is not None:
            with suppress(Exception):
                self._opened.close()
            self._opened = None


def remote_file(url: str, name: str) -> RemoteFile:
    """The file at an address, as it is now.

    Raises:
        CorpusError: there is none, or the place does not tell what is needed.
    """
    files, path = file_system(url)

    def look() -> Mapping[str, Any]:
        files.invalidate_cache()
        found: Mapping[str, Any] = files.info(path)
        return found

    return described(url, name, ask(url, look))


def described(url: str, name: str, info: Mapping[str, Any]) -> RemoteFile:
    """The file of which a place tells ``info``.

    Raises:
        CorpusError: it does not tell its size, or nothing that tells another version from it.
    """
    version = next((str(_plain(info[key])) for key in VERSIONS if info.get(key)), "")
    if info.get("size") is None or not version:
        missing = "how large it is" if info.get("size") is None else "an ETag or a time of change, by which its version"
        raise CorpusError(f"the server of {url} does not tell {missing} is known: download the file and name its path")
    return RemoteFile(url, name, int(info["size"]), version)


def file_system(url: str) -> tuple[Any, str]:
    """The implementation of fsspec for an address, and the path in it.

    Raises:
        CorpusError: there is none, or it is not installed.
    """
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        found: tuple[Any, str] = url_to_fs(url)
    except ValueError as error:
        raise CorpusError(f"corpus.source={url}: {error}") from error
    except ImportError as error:
        raise CorpusError(f"corpus.source={url} needs a package: {error}") from error
    except OSError as error:  # some connect at once (ftp)
        raise CorpusError(f"cannot read {url}: {type(error).__name__}: {error}") from error
    return found


def ask(url: str, request: Callable[[], T]) -> T:
    """What ``request`` returns, tried again where it fails.

    Raises:
        CorpusAway: it fails again and again.
        CorpusError: it fails in a way that another try would not change.
    """
    for pause in (*PAUSES_S, None):
        try:
            return _first_asked(url, request)
        except NoAnswer:
            raise CorpusAway(
                f"cannot read {url}: no answer in {answering.FIRST_ANSWER_S:.0f} s: see whether the server runs and "
                "its address is right"
            ) from None
        except CorpusError:
            raise
        # Each implementation has its own errors of the network.
        except Exception as error:
            # That of HTTP takes every answer, and none, for a file that is not there, and has the reason as its cause.
            cause = (error.__cause__ if isinstance(error, FileNotFoundError) else None) or error
            is_final = _is_final(cause)
            if pause is None or is_final:
                said = "no such file" if isinstance(cause, FileNotFoundError) else f"{type(cause).__name__}: {cause}"
                raise (CorpusError if is_final else CorpusAway)(f"cannot read {url}: {said}") from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def _first_asked(url: str, request: Callable[[], T]) -> T:
    """What ``request`` returns; a place that has not answered this process yet is not waited for as long as it likes.

    Raises:
        NoAnswer: it is silent.
    """
    protocol, _, rest = url.partition("://")
    place = f"{protocol}://{rest.partition('/')[0]}"
    if place in _ANSWERED:
        return request()
    try:
        found = first_answer(request)
    except NoAnswer:
        raise
    except Exception:
        _ANSWERED.add(place)
        raise
    _ANSWERED.add(place)
    return found


def _is_final(error: BaseException) -> bool:
    status = getattr(error, "status", None)
    return isinstance(error, FINAL) or (isinstance(status, int) and 400 <= status < 500 and status not in BUSY)


def _plain(value: Any) -> Any:
    """The digest in what a hub tells of a large file; a time in one form, which listings and heads give in two."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, Mapping):
        return value.get("sha256") or value
    return getattr(value, "sha256", value)
