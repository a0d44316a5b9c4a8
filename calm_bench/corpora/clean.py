"""What a corpus leaves out that only all of its documents together tell: copies, and held-out text in training text.

Documents have an order: those of test, of validation, of train, each as in the corpus. Of copies the first stays, so
that what is scored is not trained on. Each step is done by parts, like the reading before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calm_bench.array_files import append_array
from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Skipped
from calm_bench.corpora.corpus_part import Piece
from calm_bench.corpora.fill_splits import Pieces, num_documents
from calm_bench.corpora.near_duplicates import PERMUTATIONS, earlier_likes, signature
from calm_bench.corpora.split_files import SPLITS, Split, SplitWriter, read_encoded
from calm_bench.corpora.word_runs import Hashes, word_runs
from calm_bench.fingerprint import file_digest
from calm_bench.kept_folders import make_folder
from calm_bench.published_parts import PARTIAL, PartMapper, publish_part

ORDER: tuple[Split, ...] = ("test", "validation", "train")
EXACT, NEAR, NEAR_ACROSS, CONTAMINATED = range(1, 5)
REASONS = {
    EXACT: "exact copy of an earlier document",
    NEAR: "near duplicate of an earlier document",
    NEAR_ACROSS: "near duplicate of a document in another split",
    CONTAMINATED: "held-out document that shares a run of words with the training text (quality.decontaminate_words)",
}
SHOWN_CHARACTERS = 60

Codes = npt.NDArray[np.uint8]
"""Of each document 0, or why it is left out."""


@dataclass(frozen=True)
class Unit:
    """The documents of one piece, and why each of them is left out."""

    number: int
    split: Split
    piece: Piece
    codes: bytes = b""

    @property
    def key(self) -> list[str]:
        """What it holds, as JSON."""
        return [file_digest(self.piece.digests), hashlib.sha256(self.codes).hexdigest()]

    def kept(self) -> Iterator[str]:
        """The documents that are not left out."""
        for encoded, code in zip(read_encoded(self.piece.path), self.codes, strict=True):
            if not code:
                yield encoded.decode()


def clean(config: Corpus, folder: Path, pieces: Pieces, map_parts: PartMapper) -> tuple[Pieces, Skipped]:
    """The same pieces without the documents that ``config.quality`` leaves out, and what these were.

    Raises:
        CorpusError: nothing is left of a split.
    """
    quality, skipped = config.quality, Skipped()
    if quality.duplicates == "keep" and quality.decontaminate_words is None:
        return pieces, skipped
    ordered = [(split, piece) for split in ORDER for piece in pieces[split]]
    units = [Unit(number, split, piece, bytes(piece.documents)) for number, (split, piece) in enumerate(ordered)]
    if quality.duplicates != "keep":
        units = _with_codes(units, _copies(units))
    if quality.duplicates == "near":
        units = _with_codes(units, _near_copies(units, folder, quality.similarity, map_parts))
    if quality.decontaminate_words is not None:
        units = _with_codes(units, _contaminated(units, folder, quality.decontaminate_words, map_parts))
    changed = [unit for unit in units if any(unit.codes)]
    cleaned = {unit.number: unit.piece for unit in units}
    found = _mapped(map_parts, partial(_rewrite, folder), changed)
    for number in sorted(found):
        cleaned[number], left_out = found[number]
        skipped.merge(left_out)
    result: Pieces = {split: [cleaned[unit.number] for unit in units if unit.split == split] for split in SPLITS}
    for split in SPLITS:
        if num_documents(pieces[split]) and not num_documents(result[split]):
            raise CorpusError(
                f"corpus.quality leaves no document in {split} ({skipped.summary()}): ask for less, or add text"
            )
    return result, skipped


def _with_codes(units: Sequence[Unit], codes: Codes) -> list[Unit]:
    """The units with further reasons; the first one that is found for a document stays."""
    found, begin = [], 0
    for unit in units:
        mine = codes[begin : begin + unit.piece.documents]
        before = np.frombuffer(unit.codes, np.uint8)
        found.append(replace(unit, codes=np.where(before > 0, before, mine).astype(np.uint8).tobytes()))
        begin += unit.piece.documents
    return found


def _copies(units: Sequence[Unit]) -> Codes:
    """Documents of which an earlier one is an exact copy, told by the first 64 bits of their digests."""
    total = sum(unit.piece.documents for unit in units)
    digests = [np.fromfile(unit.piece.digests, "<u8").reshape(-1, 4)[:, 0] for unit in units if unit.piece.documents]
    _, first = np.unique(np.concatenate(digests), return_index=True)
    codes = np.full(total, EXACT, np.uint8)
    codes[first] = 0
    return codes


def _near_copies(units: Sequence[Unit], folder: Path, similarity: float, map_parts: PartMapper) -> Codes:
    signed: dict[int, Path] = _mapped(map_parts, partial(_sign, folder), units)
    total = sum(unit.piece.documents for unit in units)
    # All signatures together may be too many to hold.
    together = folder / PARTIAL / "signatures.bin"
    make_folder(together.parent)
    with together.open("wb") as out:
        for unit in units:
            out.write(signed[unit.number].read_bytes())
    likes = earlier_likes(np.memmap(together, np.uint32, "r", shape=(total, PERMUTATIONS)), similarity)
    together.unlink()
    split_of = np.repeat([ORDER.index(unit.split) for unit in units], [unit.piece.documents for unit in units])
    across = split_of != split_of[np.maximum(likes, 0)]
    return np.where(likes < 0, 0, np.where(across, NEAR_ACROSS, NEAR)).astype(np.uint8)


def _sign(folder: Path, unit: Unit) -> tuple[int, Path]:
    """Publish the signatures of all documents of a unit; those that are left out already have that of no text."""

    def make(empty: Path) -> dict[str, Any]:
        nothing = signature("")
        with (empty / "signatures.bin").open("wb") as out:
            for encoded, code in zip(read_encoded(unit.piece.path), unit.codes, strict=True):
                append_array(out, nothing if code else signature(encoded.decode()))
        return {}

    published = publish_part(folder, f"signatures-{unit.number:05d}", {"of": unit.key}, make)
    return unit.number, published.folder / "signatures.bin"


def _contaminated(units: Sequence[Unit], folder: Path, words: int, map_parts: PartMapper) -> Codes:
    """Held-out documents of which a run of ``words`` words stands in a training document that is kept."""
    held_out = [unit for unit in units if unit.split != "train"]
    hashed: dict[int, Path] = _mapped(map_parts, partial(_hash, folder, words), held_out)
    every = [np.fromfile(hashed[unit.number] / "runs.bin", np.uint64) for unit in held_out]
    wanted = folder / PARTIAL / "held-out-runs.npy"
    make_folder(wanted.parent)
    np.save(wanted, np.unique(np.concatenate(every)))
    train = [unit for unit in units if unit.split == "train"]
    met: dict[int, Path] = _mapped(map_parts, partial(_meet, folder, words, wanted, file_digest(wanted)), train)
    shared = np.unique(np.concatenate([np.fromfile(path, np.uint64) for path in met.values()]))
    codes = []
    for unit, runs in zip(held_out, every, strict=True):
        ends = np.cumsum(np.fromfile(hashed[unit.number] / "counts.bin", np.int64))
        hits = np.concatenate([[0], np.cumsum(_is_in(runs, shared))])
        begins = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        codes.append(np.where(hits[ends] > hits[begins], CONTAMINATED, 0))
    none = [np.zeros(unit.piece.documents, np.int64) for unit in train]
    return np.concatenate([*codes, *none]).astype(np.uint8)


def _is_in(values: Hashes, wanted: Hashes) -> npt.NDArray[np.bool_]:
    """Whether each of ``values`` is among the sorted ``wanted``."""
    if not len(wanted):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    found: npt.NDArray[np.bool_] = wanted[at] == values
    return found


def _hash(folder: Path, words: int, unit: Unit) -> tuple[int, Path]:
    """Publish the runs of words of all documents of a unit, and how many each has."""

    def make(empty: Path) -> dict[str, Any]:
        with (empty / "runs.bin").open("wb") as runs_file, (empty / "counts.bin").open("wb") as counts_file:
            for encoded in read_encoded(unit.piece.path):
                runs = word_runs(encoded.decode(), words)
                append_array(runs_file, runs)
                append_array(counts_file, np.array([len(runs)], np.int64))
        return {}

    published = publish_part(folder, f"runs-{unit.number:05d}", {"of": unit.key, "words": words}, make)
    return unit.number, published.folder


def _meet(folder: Path, words: int, wanted: Path, digest: str, unit: Unit) -> tuple[int, Path]:
    """Publish those of the runs in ``wanted`` that the kept documents of a unit have."""

    def make(empty: Path) -> dict[str, Any]:
        sought = np.load(wanted, mmap_mode="r")
        met = [runs[_is_in(runs, sought)] for runs in (word_runs(text, words) for text in unit.kept())]
        with (empty / "met.bin").open("wb") as out:
            append_array(out, np.unique(np.concatenate([np.empty(0, np.uint64), *met])))
        return {}

    published = publish_part(folder, f"met-{unit.number:05d}", {"of": unit.key, "words": words, "in": digest}, make)
    return unit.number, published.folder / "met.bin"


def _rewrite(folder: Path, unit: Unit) -> tuple[int, tuple[Piece, Skipped]]:
    """Publish a piece without the documents that are left out."""

    def make(empty: Path) -> dict[str, Any]:
        skipped = Skipped()
        with SplitWriter(empty / f"{unit.split}.arrow") as writer:
            for encoded, code in zip(read_encoded(unit.piece.path), unit.codes, strict=True):
                if code:
                    beginning = " ".join(encoded[: 4 * SHOWN_CHARACTERS].decode(errors="ignore").split())
                    skipped.add(REASONS[code], f"{unit.split}: {beginning[:SHOWN_CHARACTERS]}")
                else:
                    writer.add(encoded)
        return {"documents": writer.documents, "bytes": writer.bytes, "skipped": skipped.as_dict()}

    published = publish_part(folder, f"cleaned-{unit.number:05d}", {"of": unit.key, "split": unit.split}, make)
    found = published.found
    piece = Piece(published.folder / f"{unit.split}.arrow", found["documents"], found["bytes"])
    return unit.number, (piece, Skipped.from_dict(found["skipped"]))


def _mapped(map_parts: PartMapper, work: Any, units: Sequence[Unit]) -> dict[int, Any]:
    """What ``work`` found for each unit, by number."""
    with closing(map_parts(work, units)) as found:
        return dict(found)
