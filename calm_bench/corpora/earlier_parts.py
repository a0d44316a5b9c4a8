"""Parts of finished corpora, which one of the same files takes over: of a folder that grew only what is new is read.

``parts.json`` in the folder of a finished corpus tells what each of its parts was made of, and which of its files holds
it. A part of which a document was left out or moved afterwards is not listed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_json
from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.split_files import SPLITS, Split, SplitWriter, digests_beside, read_encoded
from calm_bench.fingerprint import file_digest
from calm_bench.inside import is_inside
from calm_bench.kept_elsewhere import ELSEWHERE
from calm_bench.published_parts import link

INDEX = "parts.json"
FORMAT = 1


@dataclass(frozen=True)
class SplitFile:
    """The documents of one split in one part, in a finished corpus."""

    file: str
    """Relative to the corpus."""
    sha256: str
    documents: int
    bytes: int
    """UTF-8 bytes of text."""


@dataclass(frozen=True)
class EarlierPart:
    """A part of a finished corpus."""

    folder: Path
    """Of the corpus."""
    key: str
    """As :func:`calm_bench.corpora.source.part_key` gives it."""
    limit: int | None
    """The limit at which its reader stopped; None if it read all."""
    splits: Mapping[Split, SplitFile]
    """Those that have documents of it."""
    skipped: Mapping[str, Any]
    """As :meth:`calm_bench.corpora.base.Skipped.as_dict` gives it."""

    @property
    def documents(self) -> int:
        return sum(file.documents for file in self.splits.values())

    def as_dict(self) -> dict[str, Any]:
        """Its entry in ``parts.json``."""
        splits = {split: vars(file) for split, file in self.splits.items()}
        return {"key": self.key, "limit": self.limit, "splits": splits, "skipped": self.skipped}

    @classmethod
    def from_dict(cls, folder: Path, found: Mapping[str, Any]) -> EarlierPart:
        """
        Raises:
            KeyError, TypeError, AttributeError: it is no entry.
        """
        splits = {split: SplitFile(**found["splits"][split]) for split in SPLITS if split in found["splits"]}
        return cls(folder, found["key"], found["limit"], splits, found["skipped"])

    def take_over(self, folder: Path) -> dict[str, Any] | None:
        """Put the files of the part into ``folder``, as its reader would; None where they are gone or damaged.

        Returns:
            What its reader would return.
        """
        try:
            self._link(folder)
        except (FileNotFoundError, CorpusError):
            # A reader would write into the very files of the other corpus.
            for file in folder.iterdir():
                file.unlink()
            return None
        found = {split: self.splits.get(split) for split in SPLITS}
        return {
            "documents": {split: file.documents if file else 0 for split, file in found.items()},
            "bytes": {split: file.bytes if file else 0 for split, file in found.items()},
            "skipped": dict(self.skipped),
        }

    def _link(self, folder: Path) -> None:
        """
        Raises:
            FileNotFoundError, CorpusError: a file is gone or damaged.
        """
        for split in SPLITS:
            target = folder / f"{split}.arrow"
            if (mine := self.splits.get(split)) is None:
                with SplitWriter(target):
                    continue
            if not is_inside(self.folder, mine.file):
                raise CorpusError(f"{self.folder} names {mine.file}, which is outside it")
            link(self.folder / mine.file, target)
            if file_digest(target) != mine.sha256:
                raise CorpusError(f"{self.folder / mine.file} is damaged")
            with digests_beside(target).open("wb") as digests:
                for encoded in read_encoded(target):
                    digests.write(hashlib.sha256(encoded).digest())


class EarlierParts:
    """The parts that finished corpora in ``folders`` list; of equal ones that of the first."""

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._parts: dict[tuple[str, int | None], EarlierPart] = {}
        for folder in folders:
            for part in _read(folder):
                self._parts.setdefault((part.key, part.limit), part)

    def find(self, key: str | None, limit: int | None) -> EarlierPart | None:
        """The part of this key, of which a reader takes ``limit`` documents at most."""
        if key is None:
            return None
        whole = self._parts.get((key, None))
        return whole if whole and (limit is None or whole.documents < limit) else self._parts.get((key, limit))


def write_index(folder: Path, parts: Sequence[EarlierPart]) -> None:
    """List the parts of a corpus in its folder, where there are any; what another corpus listed there goes."""
    (folder / INDEX).unlink(missing_ok=True)
    if parts:
        write_json(folder / INDEX, {"format": FORMAT, "parts": [part.as_dict() for part in parts]})


def _read(folder: Path) -> list[EarlierPart]:
    """The parts that a corpus lists; none where it was written without, by another version, or is kept elsewhere."""
    if (folder / ELSEWHERE).is_file():
        return []
    try:
        index = json.loads((folder / INDEX).read_bytes())
        if index["format"] != FORMAT:
            return []
        return [EarlierPart.from_dict(folder, found) for found in index["parts"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
