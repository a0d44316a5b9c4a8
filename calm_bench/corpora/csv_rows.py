"""The rows of a CSV file, of which none is held that is longer than it may be."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from typing import NamedTuple, TextIO

BLANKS = " \t"
"""What a blank line may hold."""


class Row(NamedTuple):
    """One row."""

    values: list[str] | None
    """None where it is too long."""
    line: int
    """The last line of the file that it takes."""
    is_whole: bool = True
    """False of one in which a quote opens that never closes: it took the rest of the file."""


def csv_rows(text: TextIO, longest: int | None = None) -> Iterator[Row]:
    """The rows of ``text``, which was opened without translation of line ends, the header among them.

    Args:
        longest: a row of more characters is passed over, a piece at a time. It ends where a line does and as many
            quotes have opened as have closed.
    """
    # Documents are longer than the 131,072 characters that the module allows a field.
    csv.field_size_limit(sys.maxsize)
    lines = _Lines(text, longest)
    while not lines.ended:
        for values in csv.reader(lines):
            if lines.overflowed:
                break
            lines.begin_row()
            # A row that ends where a line does is given before the file is known to end.
            yield Row(values, lines.number, not lines.ended)
        if lines.overflowed:
            lines.pass_over()
            yield Row(None, lines.number)


def header_of(rows: Iterator[Row]) -> list[str]:
    """The names of the fields: the first row that is no blank line, which is read; none where there is no such row."""
    for values, _, _ in rows:
        if values is None or len(values) > 1 or "".join(values).strip(BLANKS):
            return values or []
    return []


def begins_blank(head: bytes) -> bool:
    """Whether the first line of a file, which begins with ``head``, is blank."""
    line = head.lstrip(BLANKS.encode())
    return line.startswith((b"\n", b"\r"))


class _Lines:
    """Lines for a reader of CSV; they end where the file does, and where the row under way has become too long."""

    def __init__(self, text: TextIO, longest: int | None) -> None:
        self._text = text
        self._limit = -1 if longest is None else longest + 1
        self._piece = ""
        self._characters = 0
        self._quotes = 0
        self.number = 0
        self.ended = False
        self.overflowed = False

    def __iter__(self) -> Iterator[str]:
        while self._read():
            if self._limit >= 0 and self._characters >= self._limit:
                self.overflowed = True
                return
            self.number += 1
            yield self._piece
        self.ended = True

    def begin_row(self) -> None:
        """Forget the row that was read."""
        self._characters = self._quotes = 0

    def pass_over(self) -> None:
        """Read to the end of a row that is too long."""
        while self._piece and not (self._piece.endswith(("\n", "\r")) and self._quotes % 2 == 0):
            self.number += self._piece.endswith(("\n", "\r"))
            self._read()
        self.number += 1
        self.overflowed = False
        self.ended = not self._piece
        self.begin_row()

    def _read(self) -> str:
        self._piece = self._text.readline(self._limit)
        self._characters += len(self._piece)
        self._quotes += self._piece.count('"')
        return self._piece
