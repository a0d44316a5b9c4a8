"""Documents from files of text, JSON, CSV, Parquet and Arrow, wherever they lie."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Generic, Protocol, TypeVar

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Document, Skipped
from calm_bench.corpora.compressed import is_damage, open_text
from calm_bench.corpora.csv_rows import begins_blank
from calm_bench.corpora.input_file import COMPRESSIONS, InputFile, format_of, is_compressed
from calm_bench.corpora.input_parts import Span, pack, spans_of
from calm_bench.corpora.plain_text import DOCUMENTS_WANTED, LONGEST_CUT, MANY_FILES, Cut, cut_documents
from calm_bench.corpora.records import Records
from calm_bench.corpora.text_field import check_field
from calm_bench.file_signs import HEAD_BYTES, has_old_line_ends, is_pointer, misnamed, misread_as

TEXT_SUFFIXES = (".txt", ".jsonl", ".json", ".csv")
BINARY_SUFFIXES = (".parquet", ".arrow")
KINDS = {
    *TEXT_SUFFIXES,
    *BINARY_SUFFIXES,
    *(suffix + compression for suffix in TEXT_SUFFIXES for compression in COMPRESSIONS),
}
KINDS_IN_WORDS = (
    f"{', '.join(TEXT_SUFFIXES)} (each also with {', '.join(COMPRESSIONS)}), {' or '.join(BINARY_SUFFIXES)}"
)
LINES = (".txt", ".jsonl")
"""Formats that are read line by line; those of a .csv may end in CR alone."""
OLD_LINE_ENDS = (
    "text whose lines end in CR alone, as on old Macs, and is one line here: convert it with "
    "`tr '\\r' '\\n' < FILE > NEW`"
)
LINE_BYTES = 2**16
"""Without an LF among so many it is the CRs that end lines."""
CSV_READER = {"csv_reader": 2}
"""Raised when rows of the same file become other documents; 2: rows that cannot be meant are left out."""
LATE_HEADER = {"csv_reader": 3}
"""Of files that begin with a blank line, which was taken for the names of the fields."""
CUT_OFF = "compressed file cut off or damaged, its rest unread after"
READING_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)

File = TypeVar("File", bound=InputFile, covariant=True)


def reader_of(name: str, is_header_late: bool = False) -> dict[str, int]:
    """What stands beside the content of a file where its reader has changed what it makes of it."""
    if format_of(name) != ".csv":
        return {}
    return LATE_HEADER if is_header_late else CSV_READER


def has_late_header(file: InputFile) -> bool:
    """Whether a file is a .csv that begins with a blank line.

    Raises:
        CorpusError: it cannot be read.
    """
    if format_of(file.name) != ".csv":
        return False
    try:
        with open_text(file) as stream:
            return begins_blank(stream.peek(HEAD_BYTES)[:HEAD_BYTES])
    except READING_ERRORS as error:
        if is_compressed(file.name) and is_damage(error):
            return False
        raise unreadable(file, error) from error


@dataclass(frozen=True)
class FilesPart:
    """Spans of files that are read together, and where the plain texts among them are cut."""

    spans: tuple[Span, ...]
    cut: Cut


@dataclass(frozen=True)
class FilesFound(Generic[File]):
    """The files of a source in reading order."""

    files: Sequence[File]
    others: Sequence[str] = ()
    """Names of files of kinds that are not read."""


class Finder(Protocol):
    """Knows where the files of a source lie."""

    def find(self, config: Corpus) -> FilesFound[InputFile]:
        """
        Raises:
            CorpusError: there are none.
        """
        ...

    def open(self, config: Corpus, span: Span) -> InputFile:
        """The file of a span, found without looking at any other.

        Raises:
            CorpusError: it is gone.
        """
        ...

    def digest(self, config: Corpus, span: Span) -> str:
        """By which the file of a span, as it was found, is known in any other corpus too.

        Raises:
            CorpusError: it cannot be read.
        """
        ...


class FileSource:
    """Files in the order of their names.

    A record (line of .jsonl, element of .json, row of .csv, .parquet and .arrow) is one document, its text in
    ``corpus.text_field``. Plain text is cut into documents as :class:`calm_bench.corpora.plain_text.Cut` says.
    Text formats are read compressed too; what comes before the damage of a file that is cut off is kept.
    """

    fields: tuple[str, ...] = ("text_field",)

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        for part in self.divide(config, skipped):
            yield from self.read_part(config, part, skipped)
        self.check(config, skipped)

    def num_bytes(self, config: Corpus) -> int:
        try:
            return sum(file.size for file in self._finder.find(config).files)
        except OSError as error:
            raise unreadable(error.filename, error) from error

    def divide(self, config: Corpus, skipped: Skipped) -> Sequence[FilesPart]:
        found = self._finder.find(config)
        for other in found.others:
            skipped.add("file of another kind", other)
        plain = [file for file in found.files if format_of(file.name) == ".txt"]
        # Of many files no size decides.
        sizes = [0] * len(plain) if len(plain) >= MANY_FILES else map(_text_size, plain)
        cut = Cut.for_source(len(plain), sum(sizes))
        return [FilesPart(spans, cut) for spans in pack(_spans(config, found.files))]

    def read_part(self, config: Corpus, part: FilesPart, skipped: Skipped) -> Iterator[Document]:
        records = Records(config.text_field, skipped, config.max_document_bytes, config.quality)
        for span in part.spans:
            if span.problem:
                skipped.add(span.problem, span.name)
                continue
            if config.quality.language_field is not None and format_of(span.name) == ".txt":
                skipped.add("plain text, which has no field (quality.language_field)", span.name)
                continue
            last = span.name
            file = self._finder.open(config, span)
            try:
                _check_version(file, span)
                if file.is_remote and not span.start and (wrong := _misread(file)) is not None:
                    skipped.add(f"file that is {wrong}", span.name)
                    continue
                for document in _read(file, span, part.cut, records, skipped):
                    last = document.where
                    yield document
                if not file.is_remote:
                    _check_version(file, span)
            except READING_ERRORS as error:
                if is_compressed(span.name) and is_damage(error):
                    if not file.is_remote:
                        _check_version(file, span)
                    skipped.add(CUT_OFF, last)
                    continue
                raise unreadable(file, error) from error

    def part_digest(self, config: Corpus, part: FilesPart) -> Any:
        """Content and range of each file, and where plain text is cut."""
        spans = [
            [span.name, self._finder.digest(config, span), span.start, span.stop, span.by_bytes, span.problem]
            for span in part.spans
        ]
        has_prose = any(format_of(span.name) == ".txt" for span in part.spans)
        return {"spans": spans, "cut": part.cut.length if has_prose else None}

    def check(self, config: Corpus, skipped: Skipped) -> None:
        check_field(config.text_field, skipped, f"corpus.source={config.source}")


def unreadable(file: object, error: Exception) -> CorpusError:
    """What to raise where ``file`` cannot be read."""
    return CorpusError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}")


def _check_version(file: InputFile, span: Span) -> None:
    """What is read is the file that was found, by whose digest its documents are known."""
    try:
        is_other = file.version != span.version
    except OSError as error:
        raise unreadable(file, error) from error
    if is_other:
        raise CorpusError(f"{file} has changed since it was looked at: run the same command again")


def _read(file: InputFile, span: Span, cut: Cut, records: Records, skipped: Skipped) -> Iterator[Document]:
    match format_of(file.name):
        case ".txt":
            return cut_documents(file, span.place, cut, skipped, span.start, span.stop)
        case ".jsonl":
            return records.json_lines(file, span.place, span.start, span.stop)
        case ".json":
            return records.json_records(file, span.name)
        case ".csv":
            return records.csv_rows(file, span.name)
        case ".parquet":
            return records.parquet_rows(file, span.name, span.start, span.stop, span.by_bytes)
        case _:
            return records.arrow_rows(file, span.place, span.start, span.stop)


def _spans(config: Corpus, files: Sequence[InputFile]) -> Iterator[Span]:
    """The spans of all files, those included that are not to be read."""
    for file in files:
        try:
            if format_of(file.name) != ".txt" and not file.size:
                yield Span(file.name, 0, problem="empty file")
                continue
            # A request for each of many files is left to the workers that read them.
            wrong = None if file.is_remote else _misread(file)
            if wrong is None and len(files) == 1 and format_of(file.name) in LINES and _has_old_line_ends(file):
                wrong = OLD_LINE_ENDS
            if wrong is not None and len(files) == 1:
                raise CorpusError(f"corpus.source={config.source}: {PurePosixPath(file.name).name} is {wrong}")
            if wrong is not None:
                yield Span(file.name, 0, problem=f"file that is {wrong}")
                continue
            yield from spans_of(file)
        except READING_ERRORS as error:
            if not is_compressed(file.name) or not is_damage(error):
                raise unreadable(file, error) from error
            yield Span(file.name, 0, problem=CUT_OFF)


def _has_old_line_ends(file: InputFile) -> bool:
    with open_text(file) as stream:
        return has_old_line_ends(stream.read(LINE_BYTES))


def _text_size(file: InputFile) -> int:
    """Bytes of text in a file; of a compressed one no more are counted than decide how texts are cut."""
    if not is_compressed(file.name):
        return file.size
    try:
        with open_text(file) as stream:
            return len(stream.read(DOCUMENTS_WANTED * LONGEST_CUT))
    except READING_ERRORS:
        # The reader of the documents says what is wrong.
        return file.size


def _misread(file: InputFile) -> str | None:
    """What a file is instead of what its name says; that of one without text can only be a pointer."""
    with file.open() as opened:
        head = opened.read(HEAD_BYTES) or b""
    if is_compressed(file.name) or format_of(file.name) in BINARY_SUFFIXES:
        wrong = misread_as(head) if is_pointer(head) else None
    else:
        wrong = misread_as(head)
    if wrong is None and format_of(file.name) in TEXT_SUFFIXES:
        wrong = misnamed(file.name, head)
    if wrong is None and is_compressed(file.name):
        with open_text(file) as stream:
            return misread_as(stream.peek(HEAD_BYTES)[:HEAD_BYTES])
    return wrong
