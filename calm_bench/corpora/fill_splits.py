"""Corpora so small that a split stayed empty by chance: it gets a document of another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError
from calm_bench.corpora.corpus_part import Piece, position
from calm_bench.corpora.split_files import SPLITS, Split, SplitWriter, read_encoded
from calm_bench.kept_folders import make_folder

Pieces = dict[Split, list[Piece]]


def num_documents(pieces: Sequence[Piece]) -> int:
    """The documents of one split."""
    return sum(piece.documents for piece in pieces)


def fill_empty_splits(config: Corpus, pieces: Pieces, folder: Path, left_out: str) -> list[Split]:
    """Give each empty split of a positive fraction the document of the lowest hash of the largest split.

    Args:
        pieces: changed in place.
        folder: where files that have to be written anew go; what it held is removed.
        left_out: what the corpus left out, in words.

    Returns:
        The splits that were empty.

    Raises:
        CorpusError: there are not enough different documents.
    """
    shutil.rmtree(folder, ignore_errors=True)
    wanted: dict[Split, float] = {
        "train": 1.0,
        "validation": config.validation_fraction,
        "test": config.test_fraction,
    }
    filled: list[Split] = []
    for split, fraction in wanted.items():
        if fraction and not num_documents(pieces[split]):
            giver = max(SPLITS, key=lambda name: num_documents(pieces[name]))
            if not _move_lowest(config, pieces, giver, split, folder):
                total = sum(map(num_documents, pieces.values()))
                raise CorpusError(
                    f"corpus.source={config.source} has too few different documents ({total} in all, copies included) "
                    "to fill train, validation and test, which all are needed: to train on, to watch the training and "
                    f"to score; add text, or break it into several documents{left_out}"
                )
            filled.append(split)
    return filled


def _move_lowest(config: Corpus, pieces: Pieces, giver: Split, receiver: Split, folder: Path) -> bool:
    """Move the document with the lowest hash, and its copies, so that equal documents still share a split.

    Returns:
        Whether the giver had two different documents, one to keep and one to give.
    """

    def positions(piece: Piece) -> Iterator[float]:
        return (position(encoded, config.split_seed) for encoded in read_encoded(piece.path))

    ranges = [(min(positions(piece), default=1.0), max(positions(piece), default=0.0)) for piece in pieces[giver]]
    lowest = min(low for low, _ in ranges)
    if max(high for _, high in ranges) <= lowest:
        return False
    target = folder / receiver
    make_folder(target)
    kept: list[Piece] = []
    with ExitStack() as open_files:
        moved = open_files.enter_context(SplitWriter(target / "moved.arrow"))
        for number, (piece, (low, _)) in enumerate(zip(pieces[giver], ranges, strict=True)):
            if low != lowest:
                kept.append(piece)
                continue
            rest = open_files.enter_context(SplitWriter(target / f"rest-{number:05d}.arrow"))
            for encoded in read_encoded(piece.path):
                (moved if position(encoded, config.split_seed) == lowest else rest).add(encoded)
            kept.append(Piece(rest.path, rest.documents, rest.bytes))
    pieces[giver], pieces[receiver] = kept, [Piece(moved.path, moved.documents, moved.bytes)]
    return True
