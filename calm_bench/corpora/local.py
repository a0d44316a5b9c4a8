"""Documents from a file or folder of text, JSON, CSV, Parquet and Arrow."""

from __future__ import annotations

import hashlib
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Document, Skipped
from calm_bench.corpora.compressed import COMPRESSIONS, is_damage, kind_of, open_text
from calm_bench.corpora.input_parts import PART_BYTES, Span, pack, spans_of
from calm_bench.corpora.plain_text import DOCUMENTS_WANTED, LONGEST_CUT, Cut, cut_documents
from calm_bench.corpora.records import Records, check_field
from calm_bench.file_signs import HEAD_BYTES, misread_as, misread_file
from calm_bench.fingerprint import file_digest

TEXT_SUFFIXES = (".txt", ".jsonl", ".json", ".csv")
BINARY_SUFFIXES = (".parquet", ".arrow")
KINDS = {
    *TEXT_SUFFIXES,
    *BINARY_SUFFIXES,
    *(suffix + compression for suffix in TEXT_SUFFIXES for compression in COMPRESSIONS),
}


CUT_OFF = "compressed file cut off or damaged, its rest unread after"


@dataclass(frozen=True)
class FilesPart:
    """Spans of files that are read together, and where the plain texts among them are cut."""

    spans: tuple[Span, ...]
    cut: Cut


class LocalFiles:
    """Files in the order of their relative paths; hidden files and folders are not looked at.

    A record (line of .jsonl, element of .json, row of .csv, .parquet and .arrow) is one document, its text in
    ``corpus.text_field``. Plain text is cut into documents as :class:`calm_bench.corpora.plain_text.Cut` says.
    Text formats are read compressed too; what comes before the damage of a file that is cut off is kept.
    """

    fields: tuple[str, ...] = ("text_field",)

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        """A digest of the files' kinds and bytes, in reading order; neither names nor places enter it.

        The size of parts does where a plain text has several.
        """
        digest = hashlib.sha256()
        cut: dict[str, int] = {}
        for file in _find(config.source)[1]:
            digest.update(f"{kind_of(file)} {content_digest(file)}\n".encode())
            if kind_of(file) == ".txt" and file.stat().st_size > PART_BYTES:
                cut = {"text_part_bytes": PART_BYTES}
        return {"content": digest.hexdigest(), **cut}

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        for part in self.divide(config, skipped):
            yield from self.read_part(config, part, skipped)
        self.check(config, skipped)

    def num_bytes(self, config: Corpus) -> int:
        try:
            return sum(file.stat().st_size for file in _find(config.source)[1])
        except OSError as error:
            raise _unreadable(Path(str(error.filename)), error) from error

    def divide(self, config: Corpus, skipped: Skipped) -> Sequence[FilesPart]:
        root, files, others = _find(config.source)
        for other in others:
            skipped.add("file of another kind", other.relative_to(root).as_posix())
        plain = [_text_size(file) for file in files if _format(file) == ".txt"]
        cut = Cut.for_source(len(plain), sum(plain))
        return [FilesPart(spans, cut) for spans in pack(_spans(config, root, files))]

    def read_part(self, config: Corpus, part: FilesPart, skipped: Skipped) -> Iterator[Document]:
        root = _root(config.source)
        records = Records(config.text_field, skipped, config.max_document_bytes)
        for span in part.spans:
            if span.problem:
                skipped.add(span.problem, span.name)
                continue
            file = root / span.name
            last = span.name
            try:
                for document in _read(file, span, part.cut, records, skipped):
                    last = document.where
                    yield document
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                if file.suffix.lower() in COMPRESSIONS and is_damage(error):
                    skipped.add(CUT_OFF, last)
                    continue
                raise _unreadable(file, error) from error

    def check(self, config: Corpus, skipped: Skipped) -> None:
        check_field(config.text_field, skipped, f"corpus.source={config.source}")


def _read(file: Path, span: Span, cut: Cut, records: Records, skipped: Skipped) -> Iterator[Document]:
    match _format(file):
        case ".txt":
            return cut_documents(file, span.place, cut, skipped, span.start, span.stop)
        case ".jsonl":
            return records.json_lines(file, span.place, span.start, span.stop)
        case ".json":
            return records.json_records(file, span.name)
        case ".csv":
            return records.csv_rows(file, span.name)
        case ".parquet":
            return records.parquet_rows(file, span.name, span.start, span.stop)
        case _:
            return records.arrow_rows(file, span.place, span.start, span.stop)


def _spans(config: Corpus, root: Path, files: Sequence[Path]) -> Iterator[Span]:
    """The spans of all files, those included that are not to be read."""
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            if _format(file) != ".txt" and not file.stat().st_size:
                yield Span(name, 0, problem="empty file")
                continue
            wrong = _misread(file)
            if wrong is not None and len(files) == 1:
                raise CorpusError(f"corpus.source={config.source}: {file.name} is {wrong}")
            if wrong is not None:
                yield Span(name, 0, problem=f"file that is {wrong}")
                continue
            yield from spans_of(file, name, kind_of(file))
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            if file.suffix.lower() not in COMPRESSIONS or not is_damage(error):
                raise _unreadable(file, error) from error
            yield Span(name, 0, problem=CUT_OFF)


def _format(file: Path) -> str:
    """The suffix that says how to read a file, without that of its compression."""
    return "." + kind_of(file).split(".")[1]


def _unreadable(file: Path, error: Exception) -> CorpusError:
    return CorpusError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}")


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


def _text_size(file: Path) -> int:
    """Bytes of text in a file; of a compressed one no more are counted than decide how texts are cut."""
    if file.suffix.lower() not in COMPRESSIONS:
        return file.stat().st_size
    try:
        with open_text(file) as stream:
            return len(stream.read(DOCUMENTS_WANTED * LONGEST_CUT))
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        # The reader of the documents says what is wrong.
        return file.stat().st_size


def _misread(file: Path) -> str | None:
    compressed = file.suffix.lower() in COMPRESSIONS
    wrong = misread_file(file, is_text=not compressed and file.suffix.lower() not in BINARY_SUFFIXES)
    if wrong is None and compressed:
        with open_text(file) as stream:
            return misread_as(stream.peek(HEAD_BYTES)[:HEAD_BYTES])
    return wrong


def _find(source: str) -> tuple[Path, list[Path], list[Path]]:
    """The folder that places are given relative to, the files to read, and files of other kinds."""
    path, root = Path(source).expanduser(), _root(source)
    kinds = f"{', '.join(TEXT_SUFFIXES)} (each also with {', '.join(COMPRESSIONS)}), {' or '.join(BINARY_SUFFIXES)}"
    if path.is_file():
        if kind_of(path) not in KINDS:
            raise CorpusError(f"corpus.source={source}: the file's name must end in {kinds}, to say how to read it")
        return root, [path], []
    if not path.is_dir():
        raise CorpusError(f"corpus.source={source} is no file or folder")
    found = walk_files(path)
    wanted = [file for file in found if kind_of(file) in KINDS]
    if not wanted:
        raise CorpusError(f"corpus.source={source} has no file whose name ends in {kinds}")
    return root, wanted, [file for file in found if kind_of(file) not in KINDS]


def _root(source: str) -> Path:
    """The folder that names of files are relative to."""
    path = Path(source).expanduser()
    return path.parent if path.is_file() else path


def _refuse(error: OSError) -> None:
    raise CorpusError(f"cannot read {error.filename}: {error.strerror}") from error


SOURCE = LocalFiles()
