"""The records of one JSON text, an array or values one after another, decoded one at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

from calm_bench.corpora.base import CorpusError

PIECE_BYTES = 2**16
SIGNS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
"""What tells where a value ends, and escaped characters, which do not."""
TOKEN_CHARACTERS = 16
"""No number's sign, word or escape whose end is missing begins further from the end of the text than this."""


class BrokenJSONError(CorpusError):
    """The text is no JSON from here on."""


class Stream(Protocol):
    """Bytes that come in pieces."""

    def read1(self, size: int, /) -> bytes:
        """Some of the next bytes; none at the end."""
        ...


class TooLong:
    """Stands for a value that was passed over."""


def json_values(stream: Stream, longest: int | None = None) -> Iterator[Any]:
    """The elements of the array that ``stream`` holds, or its values if it holds no array.

    Bytes that are not UTF-8 become lone surrogates. At most two values and a piece are in memory.

    Args:
        longest: a value of more characters is passed over, a piece at a time, and :class:`TooLong` stands for it.

    Raises:
        BrokenJSONError: the text ends too early or is no JSON; the values before it have been given.
    """
    text = _Text(stream, longest)
    in_array = text.next_character() == "["
    if in_array:
        text.at += 1
    first = True
    while character := text.next_character():
        if in_array and character == "]":
            text.at += 1
            if text.next_character():
                raise BrokenJSONError("text after the end of the array")
            return
        if in_array and not first:
            if character != ",":
                raise BrokenJSONError("no comma between elements")
            text.at += 1
            text.next_character()
        first = False
        yield text.value()
    if in_array:
        raise BrokenJSONError("the array does not end")


class _Text:
    """A window of decoded text that grows until the value at ``at`` is whole."""

    def __init__(self, stream: Stream, longest: int | None) -> None:
        self.at = 0
        self._longest = longest
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._decoder = json.JSONDecoder()
        self._held = ""
        self._ended = False
        self._damage: Exception | None = None
        """What the next read meets."""

    def next_character(self) -> str:
        """The first character from ``at`` on that is no white space; empty at the end."""
        while True:
            while self.at < len(self._held) and self._held[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self._held) or self._ended:
                return self._held[self.at : self.at + 1]
            self._grow()

    def value(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._held) - TOKEN_CHARACTERS
                if self._ended or not cut:
                    raise BrokenJSONError(error.msg) from error
            except RecursionError as error:
                raise BrokenJSONError("nested too deeply") from error
            else:
                # A number at the end of the window may go on behind it.
                is_number = isinstance(value, int | float)
                if self._ended or not is_number or end < len(self._held) - TOKEN_CHARACTERS:
                    self.at = end
                    return value
            if self._longest is not None and len(self._held) - self.at > self._longest:
                self._pass_over()
                return TooLong
            self._grow()

    def _pass_over(self) -> None:
        """Move ``at`` behind the value that begins there: a string, an array or an object."""
        depth = 0
        in_string = False
        while True:
            for sign in SIGNS.finditer(self._held, self.at):
                self.at = sign.end()
                if sign[0] == '"':
                    in_string = not in_string
                elif not in_string and sign[0] in "[{":
                    depth += 1
                elif not in_string and sign[0] in "]}":
                    depth -= 1
                if not depth and not in_string and sign[0] in '"]}':
                    return
            if self._ended:
                raise BrokenJSONError("a value does not end")
            # A backslash at the end of what is held says something of the first character behind it.
            self.at = max(self.at, len(self._held) - self._held.endswith("\\"))
            self._grow(PIECE_BYTES)

    def _grow(self, num_bytes: int | None = None) -> None:
        # As much again as is held: a long value is decoded a few times and not once for each piece.
        rest = self._held[self.at :]
        read = self._read(num_bytes or max(PIECE_BYTES, len(rest)))
        self._ended = not read
        self._held, self.at = rest + self._decode(read, final=self._ended), 0

    def _read(self, num_bytes: int) -> bytes:
        """So many bytes or, at the end, fewer; what comes before damage is given before that is met."""
        if self._damage is not None:
            raise self._damage
        read = bytearray()
        try:
            while len(read) < num_bytes and (piece := self._stream.read1(num_bytes - len(read))):
                read += piece
        except Exception as error:
            if not read:
                raise
            self._damage = error
        return bytes(read)
