"""Documents from a file or folder of text, JSON, CSV, Parquet and Arrow on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.file_source import (
    KINDS,
    KINDS_IN_WORDS,
    FilesFound,
    FileSource,
    has_late_header,
    reader_of,
)
from calm_bench.corpora.input_file import LocalFile, kind_of
from calm_bench.corpora.input_parts import PART_BYTES, Span
from calm_bench.known_digests import known_digest
from calm_bench.parallel_files import map_files
from calm_bench.walk import files_below, others_below


class LocalFiles(FileSource):
    """Files in the order of their relative paths; hidden files and folders are not looked at."""

    def __init__(self) -> None:
        super().__init__(LocalFinder())

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        """A digest of the files' kinds and bytes, in reading order; neither names nor places enter it.

        The size of parts does where a plain text has several.
        """
        digest = hashlib.sha256()
        cut: dict[str, int] = {}
        files = find_local(config).files
        for file, content in zip(files, map_files(content_digest, [file.path for file in files]), strict=True):
            digest.update(f"{kind_of(file.name)} {content}\n".encode())
            if kind_of(file.name) == ".txt" and file.size > PART_BYTES:
                cut |= {"text_part_bytes": PART_BYTES}
        # One of them tells of all: the latest.
        readers = [reader_of(file.name, has_late_header(file)) for file in files]
        latest = max(readers, key=lambda reader: reader.get("csv_reader", 0))
        return {"content": digest.hexdigest(), **cut, **latest}


class LocalFinder:
    """Finds files in a folder."""

    def find(self, config: Corpus) -> FilesFound[LocalFile]:
        return find_local(config)

    def open(self, config: Corpus, span: Span) -> LocalFile:
        return LocalFile(_root(config.source) / span.name, span.name)

    def digest(self, config: Corpus, span: Span) -> str:
        file = self.open(config, span)
        reader = reader_of(file.name, has_late_header(file))
        return f"{content_digest(file.path)}{f' {reader}' if reader else ''}"


def find_local(config: Corpus) -> FilesFound[LocalFile]:
    """The files at ``config.source``.

    Raises:
        CorpusError: there are none, or a folder cannot be listed.
    """
    path, root = Path(config.source).expanduser(), _root(config.source)
    if path.is_file():
        if kind_of(path) not in KINDS:
            raise CorpusError(
                f"corpus.source={config.source}: the file's name must end in {KINDS_IN_WORDS}, to say how to read it"
            )
        return FilesFound([LocalFile(path, path.name)])
    if not path.is_dir():
        raise CorpusError(f"corpus.source={config.source} is no file or folder")
    found = walk_files(path)
    wanted = [file for file in found if kind_of(file) in KINDS]
    others = [*(file for file in found if kind_of(file) not in KINDS), *others_below(path, hidden=False)]
    if not wanted:
        raise CorpusError(f"corpus.source={config.source} has no file whose name ends in {KINDS_IN_WORDS}")
    names = sorted(other.relative_to(root).as_posix() for other in others)
    return FilesFound([LocalFile(file, file.relative_to(root).as_posix()) for file in wanted], names)


def walk_files(root: Path) -> list[Path]:
    """All files below ``root`` but hidden ones, sorted by relative path; links that lead nowhere too, which nobody can
    read.

    Raises:
        CorpusError: a folder cannot be listed.
    """
    return files_below(root, hidden=False, dangling=True, on_error=_refuse)


def content_digest(file: Path) -> str:
    """SHA-256 of a file, computed once on a node for as long as it is the same file, unchanged.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return known_digest(opened)
    except OSError as error:
        raise CorpusError(f"cannot read {file}: {error.strerror or error}") from error


def _root(source: str) -> Path:
    """The folder that names of files are relative to."""
    path = Path(source).expanduser()
    return path.parent if path.is_file() else path


def _refuse(error: OSError) -> None:
    raise CorpusError(f"cannot read {error.filename}: {error.strerror}") from error


SOURCE = LocalFiles()
