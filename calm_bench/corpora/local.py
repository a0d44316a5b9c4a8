"""Documents from a file or folder of .txt, .jsonl and .parquet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Document, Skipped
from calm_bench.corpora.plain_text import Cut, cut_documents
from calm_bench.corpora.records import Records
from calm_bench.file_signs import misread_file
from calm_bench.fingerprint import file_digest

SUFFIXES = (".txt", ".jsonl", ".parquet")


class LocalFiles:
    """Files in the order of their relative paths; hidden files and folders are not looked at.

    A line of .jsonl and a row of .parquet are one document each, its text in ``corpus.text_field``. Plain text is cut
    into documents as :class:`calm_bench.corpora.plain_text.Cut` says.
    """

    fields: tuple[str, ...] = ("text_field",)

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        """A digest of the files' kinds and bytes, in reading order; neither names nor places enter it."""
        digest = hashlib.sha256()
        for file in _find(config.source)[1]:
            digest.update(f"{file.suffix.lower()} {content_digest(file)}\n".encode())
        return {"content": digest.hexdigest()}

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        root, files, others = _find(config.source)
        for other in others:
            skipped.add("file of another kind", other.relative_to(root).as_posix())
        plain = [file.stat().st_size for file in files if file.suffix.lower() == ".txt"]
        cut = Cut.for_source(len(plain), sum(plain))
        records = Records(config.text_field, skipped)
        readers: dict[str, Callable[[Path, str], Iterator[Document]]] = {
            ".txt": lambda file, name: cut_documents(file, name, cut, skipped),
            ".jsonl": records.json_lines,
            ".parquet": records.parquet_rows,
        }
        for file in files:
            name = file.relative_to(root).as_posix()
            try:
                wrong = misread_file(file, is_text=file.suffix.lower() != ".parquet")
                if wrong is not None and len(files) == 1:
                    raise CorpusError(f"corpus.source={config.source}: {file.name} is {wrong}")
                if wrong is not None:
                    skipped.add(f"file that is {wrong}", name)
                    continue
                yield from readers[file.suffix.lower()](file, name)
            except OSError as error:
                raise CorpusError(f"cannot read {file}: {error.strerror or error}") from error
        if len(plain) < len(files):
            records.check(f"corpus.source={config.source}")


def walk_files(root: Path) -> list[Path]:
    """All files below ``root`` but hidden ones, sorted by relative path.

    Raises:
        CorpusError: a folder cannot be listed.
    """
    found: list[Path] = []
    for folder, subfolders, files in os.walk(root, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in files if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def content_digest(file: Path) -> str:
    """SHA-256 of a file, computed once per process for as long as its size and time stay the same.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        status = file.stat()
        return _digest_of_version(file.resolve(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CorpusError(f"cannot read {file}: {error.strerror or error}") from error


@lru_cache(maxsize=4096)
def _digest_of_version(file: Path, size: int, modified: int) -> str:
    return file_digest(file)


def _find(source: str) -> tuple[Path, list[Path], list[Path]]:
    """The folder that places are given relative to, the files to read, and files of other kinds."""
    path = Path(source).expanduser()
    kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise CorpusError(f"corpus.source={source}: the file's name must end in {kinds}, to say how to read it")
        return path.parent, [path], []
    if not path.is_dir():
        raise CorpusError(f"corpus.source={source} is no file or folder")
    found = walk_files(path)
    wanted = [file for file in found if file.suffix.lower() in SUFFIXES]
    if not wanted:
        raise CorpusError(f"corpus.source={source} has no file whose name ends in {kinds}")
    return path, wanted, [file for file in found if file.suffix.lower() not in SUFFIXES]


def _refuse(error: OSError) -> None:
    raise CorpusError(f"cannot read {error.filename}: {error.strerror}") from error


SOURCE = LocalFiles()
