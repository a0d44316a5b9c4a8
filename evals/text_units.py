"""Units of text in which models with different tokenizers predict the same thing: the next words, the next bytes.

A unit says where a document's text is scored, how much of a continuation must be drawn, and what of it is compared.
All of it is decided on the text alone, so it is the same for every model.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol

MAX_WORD_BYTES = 64
"""A word that is longer, the white space before it included, is not waited for."""
MAX_CHARACTER_BYTES = 4
"""Bytes of a character in UTF-8, at most."""

_WORD = re.compile(r"\S+")
_WHOLE_WORD = re.compile(r"\s*(\S+)(?=\s)")

UnitName = Literal["words", "bytes"]


class TextUnit(Protocol):
    """What Brier-n counts n of."""

    @property
    def name(self) -> UnitName: ...

    def offsets(self, text: bytes, first: int, stride: int, num_units: int) -> list[int]:
        """Byte offsets of a document's scored positions, increasing.

        Args:
            text: the document, UTF-8.
            first: bytes that a position must have before it, at least.
            stride: distance between positions, in units.
            num_units: units that must follow.
        """
        ...

    def outcomes(self, continuation: bytes, num_units: int) -> tuple[bytes | None, ...]:
        """The first ``num_units`` units; None, one outcome of its own, for each that the continuation lacks."""
        ...

    def settled(self, continuation: bytes, num_units: int) -> bool:
        """Whether no text after ``continuation`` can change its outcomes."""
        ...

    def most_bytes(self, num_units: int) -> int:
        """Bytes after which every continuation is settled."""
        ...


class Words:
    """Words between white space, as ``str.split`` has them; the kind and amount of white space is not compared.

    A position is the end of a word, before the white space that follows: there nearly every tokenizer has a token
    boundary, while a context that ends in a space cuts off the tokens of most, which begin with one. A word counts
    once white space has followed it, for models that show text only, and no end of it, too. A word that a text
    leaves unfinished, or of more than ``MAX_WORD_BYTES`` bytes, is the outcome None, and so are those after it.
    Positions with fewer than n words between white space after them are left out.
    """

    name: UnitName = "words"

    def offsets(self, text: bytes, first: int, stride: int, num_units: int) -> list[int]:
        decoded = text.decode()
        ends, done, characters = [0], 0, 0
        for match in _WORD.finditer(decoded):
            done += len(decoded[characters : match.end()].encode())
            characters = match.end()
            ends.append(done)
        # The last word counts if white space follows it.
        num_words = len(ends) - 1 - (characters == len(decoded) and len(ends) > 1)
        return [end for end in ends[: max(0, num_words - num_units + 1) : stride] if end >= first]

    def outcomes(self, continuation: bytes, num_units: int) -> tuple[bytes | None, ...]:
        words, _ = _whole_words(continuation, num_units)
        return (*words, *([None] * (num_units - len(words))))

    def settled(self, continuation: bytes, num_units: int) -> bool:
        words, rest = _whole_words(continuation, num_units)
        # The last bytes may be the beginning of a character that turns out to be white space.
        return len(words) == num_units or rest >= MAX_WORD_BYTES + MAX_CHARACTER_BYTES

    def most_bytes(self, num_units: int) -> int:
        return num_units * MAX_WORD_BYTES + MAX_CHARACTER_BYTES


class Bytes:
    """Bytes of UTF-8.

    A position lies at the beginning of a character, every ``stride`` bytes or at the next beginning after that; an
    n-gram may end inside a character. A byte that a continuation does not reach is the outcome None. Positions with
    fewer than n bytes after them are left out.
    """

    name: UnitName = "bytes"

    def offsets(self, text: bytes, first: int, stride: int, num_units: int) -> list[int]:
        moved = (character_start(text, offset) for offset in range(first, len(text), stride))
        return [offset for offset in dict.fromkeys(moved) if offset + num_units <= len(text)]

    def outcomes(self, continuation: bytes, num_units: int) -> tuple[bytes | None, ...]:
        found = continuation[:num_units]
        return (*(found[i : i + 1] for i in range(len(found))), *([None] * (num_units - len(found))))

    def settled(self, continuation: bytes, num_units: int) -> bool:
        return len(continuation) >= num_units

    def most_bytes(self, num_units: int) -> int:
        return num_units


UNITS: dict[UnitName, TextUnit] = {"words": Words(), "bytes": Bytes()}


def character_start(text: bytes, offset: int) -> int:
    """The first offset from ``offset`` on that is no continuation byte of UTF-8."""
    while offset < len(text) and text[offset] & 0xC0 == 0x80:
        offset += 1
    return offset


def _whole_words(continuation: bytes, num_words: int) -> tuple[list[bytes], int]:
    """The first words, up to the first that is too long, and how many bytes lie after the last of them."""
    # Bytes that are no UTF-8 become surrogates, and these the same bytes again.
    text = continuation.decode("utf-8", "surrogateescape")
    words: list[bytes] = []
    used = 0
    for match in _WHOLE_WORD.finditer(text):
        length = len(match.group().encode("utf-8", "surrogateescape"))
        if len(words) == num_words or length > MAX_WORD_BYTES:
            break
        words.append(match[1].encode("utf-8", "surrogateescape"))
        used += length
    return words, len(continuation) - used
