"""What a corpus source is: a place documents come from, with the facts its content depends on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from calm_bench.config import Corpus
from calm_bench.errors import UsageError

EXAMPLES_PER_REASON = 5


class CorpusError(UsageError, ValueError):
    """A corpus that cannot be read, is empty, or is described wrongly; the message says what to change."""


class Document(NamedTuple):
    """One text and the place it was found, as ``file:line`` (or ``file`` alone), relative to the source."""

    text: str
    where: str


class Skipped:
    """Counts what was not taken into the corpus, by reason, with the first few places of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Count ``count`` more for ``reason``, the first of them at ``where``."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            examples.append(where)

    def summary(self) -> str:
        """One line for people, such as ``2 x empty document (first at notes.txt:1)``."""
        return "; ".join(
            f"{count} x {reason} (first at {self.examples[reason][0]})" for reason, count in sorted(self.counts.items())
        )


class CorpusSource(Protocol):
    """A plug-in of the registry ``CORPORA``.

    The same configuration and dependencies must give the same documents in the same order on every machine.
    """

    fields: tuple[str, ...]
    """The fields of :class:`calm_bench.config.Corpus` that shape this source's documents, beyond the split settings."""

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        """What the documents depend on beyond ``fields``, as JSON: a content digest, a version, a revision."""
        ...

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        """All documents in a deterministic order; what cannot be read as a document is added to ``skipped``.

        Raises:
            CorpusError: the source as a whole cannot be read.
        """
        ...
