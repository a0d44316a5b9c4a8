"""What is scored in units of text, where and how; the counterpart of :mod:`evals.protocol` without a tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from calm_bench.fingerprint import IDENTITY_LENGTH, identity
from calm_bench.frozen import Frozen, NonNegativeInt, PositiveInt
from evals.protocol import NGRAM_LENGTHS, EvaluationError
from evals.text_units import MAX_WORD_BYTES, UNITS, TextUnit, UnitName, character_start


class TextProtocol(Frozen):
    """The measurement behind a BrierLM value over words or bytes.

    Every model is given the same stretch of text before each position and is asked for the units that follow, so
    scores rank together whatever the tokenizers are. Documents are scored one by one.
    """

    name: Literal["text"] = "text"
    unit: UnitName
    documents_digest: str
    """Digest of the scored documents (:func:`documents_digest`)."""
    context_bytes: PositiveInt = 256
    """Most bytes of left context; a document's beginning has less before it."""
    first_position: NonNegativeInt = 64
    """Least bytes of left context. With 0 the beginnings of documents are scored, after an empty context."""
    position_stride: PositiveInt = 8
    """Units between scored positions of a document."""
    max_positions: PositiveInt | None = None
    """Most positions of a document, spread evenly over it; unset means all."""
    ngram_lengths: tuple[PositiveInt, ...] = NGRAM_LENGTHS
    num_samples: Annotated[int, Field(ge=2)] = 8
    max_word_bytes: Literal[64] = 64
    """:data:`evals.text_units.MAX_WORD_BYTES`."""
    decode_mode: Literal["sample T=1"] = "sample T=1"
    seed: int = 0

    @model_validator(mode="after")
    def _positions_exist(self) -> TextProtocol:
        if not self.ngram_lengths or list(self.ngram_lengths) != sorted(set(self.ngram_lengths)):
            raise ValueError(f"ngram_lengths {self.ngram_lengths} must be increasing and not empty")
        if self.first_position > self.context_bytes:
            raise ValueError(
                f"first_position {self.first_position} asks for more left context than context_bytes "
                f"{self.context_bytes} allows"
            )
        return self

    @property
    def horizon(self) -> int:
        """Units in the longest scored n-gram."""
        return self.ngram_lengths[-1]

    @property
    def text_unit(self) -> TextUnit:
        """What is counted."""
        return UNITS[self.unit]

    @property
    def hash(self) -> str:
        """Identity of the protocol: 16 hex digits."""
        return identity(self)

    def offsets(self, text: bytes) -> list[int]:
        """Scored positions of a document, as byte offsets."""
        found = self.text_unit.offsets(text, self.first_position, self.position_stride, self.horizon)
        if self.max_positions is None or len(found) <= self.max_positions:
            return found
        return [found[index * len(found) // self.max_positions] for index in range(self.max_positions)]

    def context(self, text: bytes, offset: int) -> str:
        """The text before a position that a model may read: whole characters, ``context_bytes`` at most."""
        return text[character_start(text, max(0, offset - self.context_bytes)) : offset].decode()

    def target(self, text: bytes, offset: int) -> tuple[bytes | None, ...]:
        """The outcomes that follow a position."""
        # A character more, so that white space after the last word is seen whole.
        end = offset + self.text_unit.most_bytes(self.horizon) + MAX_WORD_BYTES
        return self.text_unit.outcomes(text[offset:end], self.horizon)


def documents_digest(documents: Iterable[str]) -> str:
    """Identity of documents in their order: 16 hex digits."""
    return combined_digest(document_digest(text) for text in documents)


def combined_digest(digests: Iterable[str]) -> str:
    """Identity of documents, given those of each (:func:`document_digest`), in their order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:IDENTITY_LENGTH]


def document_digest(text: str) -> str:
    """SHA-256 of a document, in hex.

    Raises:
        EvaluationError: the document cannot be written as UTF-8.
    """
    return hashlib.sha256(encoded(text)).hexdigest()


def encoded(text: str) -> bytes:
    """A document as UTF-8.

    Raises:
        EvaluationError: it holds halves of surrogate pairs, which are no characters.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EvaluationError(
            f"a document cannot be written as UTF-8 ({error.reason} at character {error.start}): read its file with "
            "the encoding it was written in"
        ) from None
