"""Answers of a task that are longer than what a model reads, told before there is a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from evals.harness_reader import WHERE_LENGTH, room_of, split_tokens

MOST_GROWTH = 12
"""Tokens that a byte of text becomes at most: normalisation writes a letter of Arabic as eighteen."""


class NamedVocabulary(Protocol):
    """What counts tokens."""

    @property
    def name(self) -> str: ...
    def encode(self, text: str) -> list[int]: ...


class AnswerLimit:
    """How long a continuation may be for models that read ``max_length`` tokens, of which a chunk stands before it."""

    def __init__(self, max_length: int, chunk_sizes: Iterable[int], vocabularies: Sequence[NamedVocabulary]) -> None:
        """
        Args:
            chunk_sizes: of all models that are to be asked; one at least.
            vocabularies: of their tokenizers, as far as they are known.
        """
        self.longest = min(room_of(max_length, size) - size for size in chunk_sizes)
        self._vocabularies = vocabularies

    def fault(self, context: str, continuation: str) -> str | None:
        """``an answer of ... cannot be scored`` where ``continuation`` is longer in one of the vocabularies."""
        if MOST_GROWTH * len(continuation.encode(errors="replace")) <= self.longest:
            return None
        for vocabulary in self._vocabularies:
            _, asked = split_tokens(vocabulary.encode, context, continuation)
            if len(asked) > self.longest:
                return (
                    f"an answer of {len(asked)} tokens ({vocabulary.name}) cannot be scored where {self.longest} are "
                    f"read of it at most: raise max_length ({WHERE_LENGTH})"
                )
        return None
