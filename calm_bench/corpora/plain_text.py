"""Plain text cut into documents, read a piece at a time however long the file is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from calm_bench.corpora.base import Document, Skipped
from calm_bench.corpora.compressed import open_text
from calm_bench.corpora.input_file import InputFile

MANY_FILES = 100
"""From this many files on, each is a document of its own."""
DOCUMENTS_WANTED = 256
"""Documents to aim for in a small text, so that a split of a few percent still gets some."""
SHORTEST_CUT, LONGEST_CUT = 256, 4096
WHOLE = 2**20


@dataclass(frozen=True)
class Cut:
    """Where a text is cut, in characters: at the first blank line after ``length``, at a line end after twice
    ``length``, and at a space after four times ``length``.
    """

    length: int

    @classmethod
    def for_source(cls, num_files: int, num_bytes: int) -> Cut:
        """Whole files (up to a megabyte) where there are many; else such that one book still gives documents to split.

        The size of all text decides, never where it lies.
        """
        if num_files >= MANY_FILES:
            return cls(WHOLE)
        return cls(min(LONGEST_CUT, max(SHORTEST_CUT, num_bytes // DOCUMENTS_WANTED)))


def cut_documents(
    file: InputFile, name: str, cut: Cut, skipped: Skipped, start: int = 0, stop: int | None = None
) -> Iterator[Document]:
    r"""The documents of a UTF-8 text, placed at the line they begin in, without blank lines at either end.

    A line that is not UTF-8 or holds a NUL is skipped and counted. ``\r\n`` becomes ``\n``.

    Args:
        name: of the file, in the places of documents.
        start, stop: the bytes to be cut, of which ``start`` begins a line; all of the file where they are not given.
    """
    parts: list[str] = []
    length = 0
    first_line = 1
    empty = True
    for number, text in _pieces(file, name, 4 * cut.length, skipped, start, stop):
        blank = text.isspace()
        if blank and not parts:
            continue
        if not parts:
            first_line, empty = number, False
        parts.append(text)
        length += len(text)
        at_line_end = text.endswith("\n") and length >= 2 * cut.length
        if (blank and length >= cut.length) or at_line_end or length >= 4 * cut.length:
            yield _document(parts, name, first_line)
            parts, length = [], 0
    if parts:
        yield _document(parts, name, first_line)
    elif empty:
        skipped.add("empty document", name)


def _document(parts: list[str], name: str, first_line: int) -> Document:
    return Document("".join(parts).strip("\n") + "\n", f"{name}:{first_line}")


def _pieces(
    file: InputFile, name: str, limit: int, skipped: Skipped, start: int, stop: int | None
) -> Iterator[tuple[int, str]]:
    """Line number and text of each line; one of more than ``limit`` bytes comes in several pieces."""
    number = 1
    carried = b""
    with open_text(file, start, stop) as lines:
        while raw := carried + (new := lines.readline(limit)):
            if len(new) < limit or new.endswith(b"\n"):
                piece, carried = raw, b""
            else:
                piece, carried = _break_line(raw)
            try:
                text = piece.decode()
            except UnicodeDecodeError:
                skipped.add("invalid UTF-8", f"{name}:{number}")
            else:
                if "\0" in text:
                    # Valid UTF-8, but what UTF-16 and binary files look like, never a text.
                    skipped.add("NUL character", f"{name}:{number}")
                else:
                    yield number, text.replace("\r\n", "\n")
            number += piece.endswith(b"\n")


def _break_line(raw: bytes) -> tuple[bytes, bytes]:
    """A long line broken after its last space, or if it has none before its last character."""
    end = raw.rfind(b" ") + 1
    if not end:
        end = len(raw) - 1
        # Bytes 10xxxxxx continue a character of UTF-8; it has at most three of them.
        while end > len(raw) - 4 and raw[end] & 0b1100_0000 == 0b1000_0000:
            end -= 1
    return raw[:end], raw[end:]
