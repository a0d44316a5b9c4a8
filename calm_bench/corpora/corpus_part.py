"""One part of a corpus: its documents read, cleaned and split."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from calm_bench.config import Corpus
from calm_bench.corpora.base import Document, PartedSource, Skipped
from calm_bench.corpora.document_filter import reason_to_leave_out
from calm_bench.corpora.earlier_parts import EarlierPart, SplitFile
from calm_bench.corpora.records import TOO_LONG
from calm_bench.corpora.source import find_source
from calm_bench.corpora.split_files import SPLITS, Split, SplitWriter, digests_beside
from calm_bench.published_parts import publish_part


@dataclass(frozen=True)
class CorpusPart:
    """What one worker reads of a corpus."""

    index: int
    content: Any
    """As the source divides its input; None is all of it."""
    limit: int | None
    """Only so many documents are taken, the first."""
    is_last: bool = False
    """Whether the limit is what earlier parts leave of ``max_documents``."""
    member: int | None = None
    """Which source of a mixture it is of."""
    key: str | None = None
    """As :func:`calm_bench.corpora.source.part_key` gives it."""
    earlier: EarlierPart | None = None
    """The same part of a finished corpus."""

    @property
    def name(self) -> str:
        of = "" if self.member is None else f"source-{self.member}-"
        return f"{of}{self.index:05d}-last" if self.is_last else f"{of}{self.index:05d}"


@dataclass(frozen=True)
class Piece:
    """The documents of one split in one part."""

    path: Path
    documents: int
    bytes: int
    """UTF-8 bytes of text."""

    @property
    def digests(self) -> Path:
        """SHA-256 of each document, one after the other."""
        return digests_beside(self.path)


@dataclass(frozen=True)
class PartFound:
    """What a part holds."""

    part: CorpusPart
    pieces: Mapping[Split, Piece]
    skipped: Skipped
    sha256: Mapping[Split, str]
    """Of the file of each split."""

    @property
    def documents(self) -> int:
        return sum(piece.documents for piece in self.pieces.values())

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of text."""
        return sum(piece.bytes for piece in self.pieces.values())

    def listed(self, names: Mapping[Path, str]) -> EarlierPart | None:
        """What a later corpus is told of it; None where nobody would know it again, or its documents were changed.

        Args:
            names: of the files of the finished corpus, by where they lay among the parts.
        """
        written = {split: piece for split, piece in self.pieces.items() if piece.documents}
        if self.part.key is None or not all(piece.path in names for piece in written.values()):
            return None
        files = {
            split: SplitFile(names[piece.path], self.sha256[split], piece.documents, piece.bytes)
            for split, piece in written.items()
        }
        limit = self.part.limit if self.documents == self.part.limit else None
        return EarlierPart(Path(), self.part.key, limit, files, self.skipped.as_dict())


def write_part(config: Corpus, folder: Path, part: CorpusPart) -> PartFound:
    """Publish the part in ``folder``, unless an earlier attempt has; from a finished corpus that has it.

    Raises:
        CorpusError: it cannot be read.
    """

    def make(empty: Path) -> dict[str, Any]:
        taken = None if part.earlier is None else part.earlier.take_over(empty)
        return _write(config, part, empty) if taken is None else taken

    # Of a source that is not divided nobody knows here whether it is what it was.
    content = secrets.token_hex() if part.content is None else repr(part.content)
    what = {"corpus": config, "part": content, "limit": part.limit}
    published = publish_part(folder, part.name, what, make)
    found, at = published.found, published.folder
    pieces = {split: Piece(at / f"{split}.arrow", found["documents"][split], found["bytes"][split]) for split in SPLITS}
    sha256 = {split: published.files[f"{split}.arrow"]["sha256"] for split in SPLITS}
    return PartFound(part, pieces, Skipped.from_dict(found["skipped"]), sha256)


def position(encoded: bytes, seed: int) -> float:
    """A document's place in [0, 1), from its text and the seed alone."""
    digest = _seeded(seed).copy()
    digest.update(encoded)
    return int.from_bytes(digest.digest()[:8], "big") / 2**64


@lru_cache(maxsize=1)
def _seeded(seed: int) -> Any:
    return hashlib.sha256(f"{seed}\x1f".encode())


def _write(config: Corpus, part: CorpusPart, folder: Path) -> dict[str, Any]:
    skipped = Skipped()
    kept = 0
    with ExitStack() as open_files:
        writers = {split: open_files.enter_context(SplitWriter(folder / f"{split}.arrow")) for split in SPLITS}
        for text, where in _documents(config, part, skipped):
            if not text or text.isspace():
                skipped.add("empty document", where)
                continue
            try:
                encoded = text.encode()
            except UnicodeEncodeError:
                skipped.add("invalid UTF-8", where)
                continue
            if config.max_document_bytes is not None and len(encoded) > config.max_document_bytes:
                skipped.add(TOO_LONG, where)
                continue
            reason = reason_to_leave_out(text, config.quality)
            if reason is not None:
                skipped.add(reason, where)
                continue
            writers[_split_of(encoded, config)].add(encoded)
            kept += 1
            if kept == part.limit:
                break
    return {
        "documents": {split: writer.documents for split, writer in writers.items()},
        "bytes": {split: writer.bytes for split, writer in writers.items()},
        "skipped": skipped.as_dict(),
    }


def _documents(config: Corpus, part: CorpusPart, skipped: Skipped) -> Iterator[Document]:
    source = find_source(config)
    if part.content is None:
        return source.documents(config, skipped)
    return cast(PartedSource, source).read_part(config, part.content, skipped)


def _split_of(encoded: bytes, config: Corpus) -> Split:
    place = position(encoded, config.split_seed)
    if place < config.test_fraction:
        return "test"
    return "validation" if place < config.test_fraction + config.validation_fraction else "train"
