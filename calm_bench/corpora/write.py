"""A corpus on disk: its documents by split, made part by part."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from calm_bench.atomic import write_json
from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, PartedSource, Skipped
from calm_bench.corpora.clean import clean
from calm_bench.corpora.corpus_part import CorpusPart, PartFound, Piece, write_part
from calm_bench.corpora.earlier_parts import EarlierParts, write_index
from calm_bench.corpora.fill_splits import Pieces, fill_empty_splits, num_documents
from calm_bench.corpora.mixture import KEY, WrittenMixture, shares_of
from calm_bench.corpora.source import find_source, part_key
from calm_bench.corpora.split_files import FORMAT, MANIFEST, SPLITS, Split
from calm_bench.kept_folders import make_folder
from calm_bench.published_parts import PARTS, PartMapper, in_this_process, link, remove_unfinished_parts

DIGESTS_AT_ONCE = 2**23
READ_BYTES = 2**20


@dataclass(frozen=True)
class CorpusReport:
    """What was written, and what was not."""

    source: str
    digest: str
    """SHA-256 over the documents of all splits in their order."""
    python: str | None
    """Version of the Python whose standard library was read; None for other sources."""
    documents: dict[str, int]
    """Number of documents by split."""
    bytes: dict[str, int]
    """UTF-8 bytes of text by split."""
    skipped: dict[str, int]
    """How much was left out, by reason."""
    examples: dict[str, list[str]]
    """The first places of each reason, as ``file:line``, in later pieces of a large file as ``file@offset:line``."""
    filled: list[str]
    """Splits that no document fell into by chance and that were given one (only ever in small corpora)."""
    repeated: dict[str, int]
    """Documents of the held-out splits that are exact copies of an earlier one there; errors take them for one."""
    mixture: list[dict[str, Any]] | None = None
    """Source, documents, bytes and what was left out of each source of a mixture."""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON; what does not apply to a corpus of one source is left out."""
        found = asdict(self)
        if self.mixture is None:
            del found["mixture"]
        return found


def write_corpus(
    config: Corpus, folder: str | Path, map_parts: PartMapper = in_this_process, earlier: Iterable[str | Path] = ()
) -> CorpusReport:
    """Write ``train.arrow``, ``validation.arrow`` and ``test.arrow`` (column ``text``) into ``folder``.

    A corpus of several parts (:mod:`calm_bench.corpora.input_parts`) has ``train/part-00000.arrow`` and so on instead,
    and ``corpus.json``, which names them. Parts that an earlier attempt published in ``folder`` are taken from there,
    and ``parts.json`` tells later corpora which parts this one has.

    A document's split follows from a hash of its text and ``split_seed`` alone: neither order nor other documents
    matter, and equal documents share a split. The exception are corpora so small that a split with a positive
    fraction stays empty: it then receives the document with the lowest hash of the largest split.

    Args:
        map_parts: who makes the parts; the result is the same whoever does.
        earlier: folders of finished corpora, of which equal parts are taken instead of being read again.

    Raises:
        CorpusError: the source is unknown, unreadable, or has no document to offer.
    """
    folder = Path(folder)
    make_folder(folder)
    remove_unfinished_parts(folder)
    known = EarlierParts(Path(one) for one in earlier)
    members = [
        _write_member(member, folder, number if config.mixture else None, map_parts, known)
        for number, member in enumerate(config.members)
    ]
    skipped = Skipped()
    for member in members:
        skipped.merge(member.skipped)
    pieces: Pieces = {split: [piece for member in members for piece in member.pieces[split]] for split in SPLITS}
    pieces, left_out = clean(config, folder, pieces, map_parts)
    skipped.merge(left_out)
    members = _with_pieces(members, pieces)
    names = _name_files(folder, pieces, members, config)
    listed = (part.listed(names) for member in members for part in member.parts)
    write_index(folder, [part for part in listed if part is not None])
    hashes = {split: _digest(pieces[split]) for split in SPLITS}
    filled = {split for member in members for split in member.filled}
    return CorpusReport(
        source=config.source,
        digest=hashlib.sha256("".join(hashes.values()).encode()).hexdigest(),
        python=platform.python_version() if any(member.source == "stdlib" for member in config.members) else None,
        documents={split: num_documents(pieces[split]) for split in SPLITS},
        bytes={split: sum(piece.bytes for piece in pieces[split]) for split in SPLITS},
        skipped=dict(sorted(skipped.counts.items())),
        examples=dict(sorted(skipped.examples.items())),
        filled=[split for split in SPLITS if split in filled],
        repeated={split: _repeated(pieces[split]) for split in SPLITS if split != "train"},
        mixture=[member.as_dict() for member in members] if config.mixture else None,
    )


@dataclass(frozen=True)
class MemberFound:
    """The documents of one source."""

    config: Corpus
    parts: list[PartFound]
    """As they were read."""
    pieces: Pieces
    """As they are kept."""
    skipped: Skipped
    filled: list[Split]
    is_alone: bool
    """Whether it is a single part."""

    def as_dict(self) -> dict[str, Any]:
        """What a report tells of one source of a mixture."""
        return {
            "source": self.config.source,
            "documents": {split: num_documents(self.pieces[split]) for split in SPLITS},
            "bytes": {split: sum(piece.bytes for piece in self.pieces[split]) for split in SPLITS},
            "skipped": dict(sorted(self.skipped.counts.items())),
        }


def _with_pieces(members: Sequence[MemberFound], pieces: Pieces) -> list[MemberFound]:
    """The members with their parts of ``pieces``, which stand for those that they had, one for one."""
    rest = {split: iter(pieces[split]) for split in SPLITS}
    return [
        replace(member, pieces={split: [next(rest[split]) for _ in member.pieces[split]] for split in SPLITS})
        for member in members
    ]


def _write_member(
    config: Corpus, folder: Path, number: int | None, map_parts: PartMapper, known: EarlierParts
) -> MemberFound:
    """The documents of one source; ``number`` is its own in a mixture."""
    source = find_source(config)
    skipped = Skipped()
    contents = source.divide(config, skipped) if isinstance(source, PartedSource) else [None]
    parts = []
    for index, content in enumerate(contents):
        key = None if content is None else part_key(config, content)
        earlier = known.find(key, config.max_documents)
        parts.append(CorpusPart(index, content, config.max_documents, member=number, key=key, earlier=earlier))
    found, is_complete = _make(config, folder, parts, map_parts)
    for part in found:
        skipped.merge(part.skipped)
    if is_complete and isinstance(source, PartedSource):
        source.check(config, skipped)
    left_out = f" (left out: {skipped.summary()})" if skipped.counts else ""
    pieces: Pieces = {split: [part.pieces[split] for part in found] for split in SPLITS}
    if not any(map(num_documents, pieces.values())):
        raise CorpusError(f"corpus.source={config.source} has no document with text{left_out}")
    name = "filled" if number is None else f"source-{number}-filled"
    filled = fill_empty_splits(config, pieces, folder / PARTS / name, left_out)
    return MemberFound(config, found, pieces, skipped, filled, is_alone=len(contents) == 1)


def _make(
    config: Corpus, folder: Path, parts: Sequence[CorpusPart], map_parts: PartMapper
) -> tuple[list[PartFound], bool]:
    """The parts in order, up to the one that ``max_documents`` ends in, and whether these are all."""
    limit = config.max_documents
    work = partial(write_part, config, folder)
    made: dict[int, PartFound] = {}
    first: list[PartFound] = []
    kept = 0
    with closing(map_parts(work, parts)) as done:
        for part in done:
            made[part.part.index] = part
            while len(first) in made:
                before, kept = kept, kept + made[len(first)].documents
                first.append(made.pop(len(first)))
                if limit is not None and kept >= limit:
                    if before:
                        # A reader stops at its last document, so that what is counted as skipped comes before it too.
                        last = replace(first[-1].part, limit=limit - before, is_last=True, earlier=None)
                        first[-1] = work(last)
                    return first, False
    return first, True


def _name_files(folder: Path, pieces: Pieces, members: Sequence[MemberFound], config: Corpus) -> dict[Path, str]:
    """Give the files of the parts their names in the corpus, and let go of what another corpus had here.

    Returns:
        The name of each file that is part of the corpus.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    for split in SPLITS:
        (folder / f"{split}.arrow").unlink(missing_ok=True)
        shutil.rmtree(folder / split, ignore_errors=True)
    if not config.mixture and members[0].is_alone:
        for split in SPLITS:
            link(pieces[split][0].path, folder / f"{split}.arrow")
        return {pieces[split][0].path: f"{split}.arrow" for split in SPLITS}
    names: dict[Path, str] = {}
    splits: dict[Split, list[str]] = {}
    for split in SPLITS:
        files = [piece.path for piece in pieces[split] if piece.documents]
        splits[split] = [f"{split}/part-{number:05d}.arrow" for number in range(len(files))]
        for file, name in zip(files, splits[split], strict=True):
            link(file, folder / name)
            names[file] = name
    mixture = {}
    if config.mixture:
        counts = {
            split: [sum(bool(piece.documents) for piece in member.pieces[split]) for member in members]
            for split in SPLITS
        }
        mixture = {KEY: WrittenMixture(shares_of(config), counts).as_dict()}
    write_json(folder / MANIFEST, {"format": FORMAT, "splits": splits, **mixture})
    return names


def _digest(pieces: Sequence[Piece]) -> str:
    """SHA-256 over the SHA-256 of each document."""
    digest = hashlib.sha256()
    for piece in pieces:
        with piece.digests.open("rb") as digests:
            while read := digests.read(READ_BYTES):
                digest.update(read)
    return digest.hexdigest()


def _repeated(pieces: Sequence[Piece]) -> int:
    """How many documents are copies of an earlier one, told by the first 64 bits of their digests.

    Digests are compared ``DIGESTS_AT_ONCE``, so that memory does not grow with their number.
    """
    total = num_documents(pieces)
    rounds = -(-total // DIGESTS_AT_ONCE)
    keys = [np.memmap(piece.digests, "<u8", "r").reshape(-1, 4)[:, 0] for piece in pieces if piece.documents]
    distinct = (len(np.unique(np.concatenate([key[key % rounds == turn] for key in keys]))) for turn in range(rounds))
    return total - sum(distinct)
