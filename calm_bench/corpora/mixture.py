"""Several sources in one corpus, and how many tokens of each are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.split_files import Split, read_manifest

KEY = "mixture"
"""Of the manifest of a corpus of several sources."""


@dataclass(frozen=True)
class WrittenMixture:
    """The sources of a written corpus, in the order of their files."""

    shares: tuple[Fraction, ...]
    files: dict[Split, list[int]]
    """How many files of each split come from each source."""

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {"shares": list(map(str, self.shares)), "files": self.files}

    def source_of(self, split: Split, file: int) -> int:
        """The source of the file of that number in its split."""
        for source, count in enumerate(self.files[split]):
            if file < count:
                return source
            file -= count
        raise IndexError(f"{split} has no file {file}")


def shares_of(config: Corpus) -> tuple[Fraction, ...]:
    """Each source's part of the tokens, exactly as the weights are written: 0.1 is a tenth."""
    weights = [Fraction(str(member.weight)) for member in config.mixture]
    return tuple(weight / sum(weights) for weight in weights)


def tokens_to_take(shares: Sequence[Fraction], available: Sequence[int]) -> list[int]:
    """Tokens of each source such that each has its share, as many as there can be without repeating any.

    With N the largest number of tokens of which no share is more than its source has, a source of share w gives
    floor(N w): each is less than one token below its share.
    """
    total = min(int(have / share) for share, have in zip(shares, available, strict=True))
    return [int(total * share) for share in shares]


def read_mixture(folder: Path) -> WrittenMixture | None:
    """The sources of the corpus in ``folder``; None where it has one.

    Raises:
        CorpusError: its list of files cannot be read.
    """
    found = (read_manifest(folder) or {}).get(KEY)
    if found is None:
        return None
    try:
        return WrittenMixture(tuple(map(Fraction, found["shares"])), dict(found["files"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{folder} does not tell its sources ({error}); write the corpus again") from error
