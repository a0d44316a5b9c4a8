"""The documents of one split on disk: Arrow files of one column, written and read as streams."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.bring_file import bring_file
from calm_bench.inside import is_inside
from calm_bench.kept_elsewhere import kept_elsewhere

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SCHEMA = pa.schema([pa.field("text", pa.string(), nullable=False)])
BATCH_BYTES = 4 * 2**20
MANIFEST = "corpus.json"
"""The file of a corpus of several parts that names the files of each split; one of a single part has none."""
FORMAT = 1
DIGEST_BYTES = 32


def digests_beside(path: Path) -> Path:
    """Where SHA-256 of each document of the file ``path`` lies, one after the other, while a corpus is made."""
    return path.with_suffix(".digests")


class SplitWriter:
    """Appends documents to one Arrow file, in record batches of about ``BATCH_BYTES``, and their SHA-256 to another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digests = digests_beside(path)
        self.documents = 0
        self.bytes = 0
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._file = pa.ipc.new_file(str(path), SCHEMA)
        self._digests: IO[bytes] = self.digests.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._file.close()
        self._digests.close()

    def add(self, encoded: bytes) -> None:
        """Append one document, in UTF-8."""
        self.documents += 1
        self.bytes += len(encoded)
        self._digests.write(hashlib.sha256(encoded).digest())
        self._batch.append(encoded)
        self._batch_bytes += len(encoded)
        if self._batch_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            # They were encoded from text: a cast would look whether they are UTF-8.
            column = pa.array(self._batch, type=pa.binary()).view(pa.string())
            self._file.write_batch(pa.record_batch([column], schema=SCHEMA))
            self._batch, self._batch_bytes = [], 0


def split_files(folder: Path, split: Split) -> list[Path]:
    """The files of one split of a written corpus, in order; those that are kept elsewhere are brought first.

    Raises:
        CorpusError: the corpus has a list of its files that cannot be read, or a file is not what was published.
        NotThere: a file cannot be brought.
    """
    elsewhere = kept_elsewhere(folder)
    names = _names_of(folder, split, elsewhere)
    return [bring_file(folder, name, elsewhere[name]) if name in elsewhere else folder / name for name in names]


def _names_of(folder: Path, split: Split, elsewhere: Container[str]) -> list[str]:
    alone = f"{split}.arrow"
    manifest = None if alone in elsewhere or (folder / alone).exists() else read_manifest(folder)
    if manifest is None:
        return [alone]
    path = folder / MANIFEST
    try:
        names = list(map(str, manifest["splits"][split]))
    except (KeyError, TypeError) as error:
        raise _no_list(path, error) from error
    for name in names:
        if not is_inside(folder, name):
            raise CorpusError(f"{path} names {folder / name}, which is outside its folder; write the corpus again")
    return names


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What a corpus of several parts says of its files; None where it is of a single part.

    Raises:
        CorpusError: it cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise CorpusError(f"{path} has format {manifest['format']}, this version reads {FORMAT}; write it again")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CorpusError):
            raise
        raise _no_list(path, error) from error
    return manifest


def num_batches(path: Path) -> int:
    """How many record batches a file of a split has.

    Raises:
        CorpusError: it is missing or no Arrow file.
    """
    try:
        with pa.memory_map(str(path)) as mapped:
            return int(pa.ipc.open_file(mapped).num_record_batches)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_batches(path: Path, start: int = 0, stop: int | None = None) -> Iterator[Any]:
    """The column ``text`` of the record batches from ``start`` to before ``stop``, mapped; one in memory at a time.

    Raises:
        CorpusError: the file is missing or no Arrow file, or became shorter meanwhile.
    """
    try:
        size = path.stat().st_size
        with pa.memory_map(str(path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            for index in range(reader.num_record_batches)[start:stop]:
                # What a mapped file has lost ends the process by a signal, without a word.
                if path.stat().st_size < size:
                    raise OSError("it became shorter while it was read")
                yield reader.get_batch(index).column("text")
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error


def text_bounds(column: Any) -> npt.NDArray[np.int64]:
    """Where each text of a column begins in its buffer of bytes, and where the last one ends."""
    bounds: npt.NDArray[np.int32] = np.frombuffer(column.buffers()[1], np.int32)
    return bounds[column.offset : column.offset + len(column) + 1].astype(np.int64)


def read_encoded(path: Path) -> Iterator[bytes]:
    """The documents of one file, in UTF-8.

    Raises:
        CorpusError: the file is missing or no Arrow file.
    """
    return (value.as_buffer().to_pybytes() for column in read_batches(path) for value in column)


def read_documents(folder: str | Path, split: Split) -> Iterator[str]:
    """The documents of one split of a written corpus, in order, one record batch in memory at a time.

    Raises:
        CorpusError: a file is missing or no Arrow file.
    """
    return (encoded.decode() for path in split_files(Path(folder), split) for encoded in read_encoded(path))


def _no_list(path: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{path} is not a readable list of files ({error}); write the corpus again")


def _unreadable(path: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{path} is not a readable corpus file ({error}); write the corpus again")
