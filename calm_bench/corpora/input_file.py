"""A file of a corpus, wherever it lies: what readers and the division into parts ask of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from calm_bench.corpora.base import CorpusError

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
ARROW_ROWS = 64
"""Of a mapped file, read between two looks at whether it is whole."""


class InputFile(Protocol):
    """Bytes with a name, a size and a version; ``str()`` of one is its place, for people."""

    @property
    def name(self) -> str:
        """Path relative to the source, with ``/`` between its parts."""
        ...

    @property
    def size(self) -> int:
        """Bytes.

        Raises:
            OSError: there is no such file.
        """
        ...

    @property
    def version(self) -> int | str:
        """By which another content under the same name is told from this one.

        Raises:
            OSError: there is no such file.
        """
        ...

    @property
    def buffer_bytes(self) -> int:
        """So much is worth one request."""
        ...

    @property
    def has_ranges(self) -> bool:
        """Whether it can be read from anywhere, and not only from its beginning.

        Raises:
            OSError: it cannot be asked.
        """
        ...

    @property
    def is_remote(self) -> bool:
        """Whether every look into it is a request to another machine."""
        ...

    def open(self, start: int = 0) -> io.RawIOBase:
        """Its bytes from ``start`` on.

        Raises:
            OSError: it cannot be read; so may every later read.
        """
        ...

    def open_arrow(self, mapped: bool = True) -> AbstractContextManager[Any]:
        """All of it as a file of pyarrow that can be read from anywhere.

        Args:
            mapped: where it lies on this machine, let what is read be the system's pages, which count as memory of
                whoever looks at them, however long ago.

        Raises:
            OSError: it cannot be read; so may every later read.
        """
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine, or on a file system that it has mounted."""

    path: Path
    name: str

    def __str__(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def version(self) -> int:
        """When it was last changed, in nanoseconds."""
        return self.path.stat().st_mtime_ns

    @property
    def buffer_bytes(self) -> int:
        return 2**17

    @property
    def has_ranges(self) -> bool:
        return True

    @property
    def is_remote(self) -> bool:
        return False

    def open(self, start: int = 0) -> io.RawIOBase:
        opened = self.path.open("rb", buffering=0)
        opened.seek(start)
        return opened

    def open_arrow(self, mapped: bool = True) -> AbstractContextManager[Any]:
        import pyarrow as pa

        opened: AbstractContextManager[Any] = pa.memory_map(str(self.path)) if mapped else pa.OSFile(str(self.path))
        return opened


def while_whole(file: InputFile, size: int, batches: Iterator[Any]) -> Iterator[Any]:
    """The rows of record batches, some at a time, each looked at only while the file still has its ``size``.

    Of a mapped file that was cut, what is gone ends the process by a signal, without a word.

    Raises:
        CorpusError: it became shorter.
    """

    def check() -> None:
        if file.size < size:
            raise CorpusError(f"{file} became shorter while it was read: bring the whole file back, and run again")

    check()
    for batch in batches:
        for begin in range(0, batch.num_rows, ARROW_ROWS):
            check()
            yield batch.slice(begin, ARROW_ROWS)
        check()


def kind_of(name: str | Path) -> str:
    """The suffix that says how to read a file, in lower case, with that of its compression: ``.jsonl.gz``."""
    path = Path(name)
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last in COMPRESSIONS else last


def format_of(name: str | Path) -> str:
    """The suffix that says how to read a file, without that of its compression."""
    return "." + kind_of(name).split(".")[1]


def is_compressed(name: str | Path) -> bool:
    """Whether the name ends in one of ``COMPRESSIONS``."""
    return Path(name).suffix.lower() in COMPRESSIONS
