"""What a corpus source is: a place documents come from, with the facts its content depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from calm_bench.config import Corpus
from calm_bench.errors import UsageError

EXAMPLES_PER_REASON = 5
MOST_OTHER_FIELDS = 1000
"""So many names of fields are remembered: records keyed by number have as many as there are records."""


class CorpusError(UsageError, ValueError):
    """A corpus that cannot be read, is empty, or is described wrongly; the message says what to change."""


class CorpusAway(CorpusError):
    """The place of a corpus fails again and again: a server that is busy, restarts, or cannot be reached."""

    may_pass = True


class Document(NamedTuple):
    """One text and the place it was found, as ``file:line`` (or ``file`` alone), relative to the source."""

    text: str
    where: str


class Skipped:
    """Counts what was not taken into the corpus, by reason, with the first few places of each.

    What several parts of a corpus skipped adds up, in their order, to what one reader of all would have skipped.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self.has_field = False
        """Whether any record had the field that holds the text."""
        self.other_fields: dict[str, None] = {}
        """Fields of the records that did not have it, in the order in which they were met."""

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Count ``count`` more for ``reason``, the first of them at ``where``."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            examples.append(where)

    def note_other_fields(self, names: Iterable[str]) -> None:
        """Remember fields that a record has in place of the one that holds the text."""
        for name in names:
            if len(self.other_fields) == MOST_OTHER_FIELDS:
                break
            self.other_fields[name] = None

    def merge(self, later: Skipped) -> None:
        """Add what the reader of a later part skipped."""
        for reason, count in later.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            examples = self.examples.setdefault(reason, [])
            examples += later.examples[reason][: EXAMPLES_PER_REASON - len(examples)]
        self.has_field = self.has_field or later.has_field
        self.note_other_fields(later.other_fields)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        fields = {"has_field": self.has_field, "other_fields": list(self.other_fields)}
        return {"counts": self.counts, "examples": self.examples, **fields}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Skipped:
        """What :meth:`as_dict` gave.

        Raises:
            KeyError: a part of it is missing.
        """
        skipped = cls()
        skipped.counts, skipped.examples = dict(found["counts"]), dict(found["examples"])
        skipped.has_field = bool(found["has_field"])
        skipped.note_other_fields(found["other_fields"])
        return skipped

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


@runtime_checkable
class PartedSource(CorpusSource, Protocol):
    """A source whose input can be read in parts, by several processes at once.

    The parts follow from the input alone. The documents of all parts, in the order of the parts, are those of
    ``documents``.
    """

    def num_bytes(self, config: Corpus) -> int:
        """Bytes of the input, about and at once: they decide whether several processes are worth their start.

        0 of an input that is a single part.

        Raises:
            CorpusError: there is no such input.
        """
        ...

    def divide(self, config: Corpus, skipped: Skipped) -> Sequence[Any]:
        """The parts in order, each a value that can be pickled; what no part will read is added to ``skipped``.

        Raises:
            CorpusError: the source as a whole cannot be read.
        """
        ...

    def read_part(self, config: Corpus, part: Any, skipped: Skipped) -> Iterator[Document]:
        """The documents of one part, as ``documents`` gives them.

        Raises:
            CorpusError: the part cannot be read.
        """
        ...

    def check(self, config: Corpus, skipped: Skipped) -> None:
        """Look at what the readers of all parts skipped, once every part has been read.

        Raises:
            CorpusError: taken together it says that the corpus is described wrongly.
        """
        ...


@runtime_checkable
class DigestedSource(PartedSource, Protocol):
    """A parted source that knows a part again in another input: a folder that grew, or of which one file changed."""

    def part_digest(self, config: Corpus, part: Any) -> Any:
        """JSON that determines the documents of the part and their places, ``fields`` aside; None of one of which
        nothing is known.

        Raises:
            CorpusError: the part cannot be read.
        """
        ...
