"""Documents on disk: one Arrow file per split, written and read as streams."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from calm_bench.config import Corpus
from calm_bench.corpora.base import CorpusError, Skipped
from calm_bench.corpora.records import TOO_LONG
from calm_bench.corpora.source import find_source

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SCHEMA = pa.schema([pa.field("text", pa.string(), nullable=False)])
BATCH_BYTES = 4 * 2**20


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
    """The first places of each reason, as ``file:line``."""
    filled: list[str]
    """Splits that no document fell into by chance and that were given one (only ever in small corpora)."""
    repeated: dict[str, int]
    """Documents of the held-out splits that are exact copies of an earlier one there; errors take them for one."""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def write_corpus(config: Corpus, folder: str | Path) -> CorpusReport:
    """Write ``train.arrow``, ``validation.arrow`` and ``test.arrow`` (column ``text``) into ``folder``.

    A document's split follows from a hash of its text and ``split_seed`` alone: neither order nor other documents
    matter, and equal documents share a split. The exception are corpora so small that a split with a positive
    fraction stays empty: it then receives the document with the lowest hash of the largest split.

    Raises:
        CorpusError: the source is unknown, unreadable, or has no document to offer.
    """
    source = find_source(config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    skipped = Skipped()
    writers = {split: _Writer(folder / f"{split}.arrow") for split in SPLITS}
    try:
        kept = 0
        for text, where in source.documents(config, skipped):
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
            writers[_split_of(encoded, config)].add(encoded)
            kept += 1
            if kept == config.max_documents:
                break
    finally:
        for writer in writers.values():
            writer.close()
    left_out = f" (left out: {skipped.summary()})" if skipped.counts else ""
    if not kept:
        raise CorpusError(f"corpus.source={config.source} has no document with text{left_out}")
    filled = _fill_empty_splits(config, writers, left_out)
    return CorpusReport(
        source=config.source,
        digest=hashlib.sha256("".join(writers[split].hash.hexdigest() for split in SPLITS).encode()).hexdigest(),
        python=platform.python_version() if config.source == "stdlib" else None,
        documents={split: writers[split].documents for split in SPLITS},
        bytes={split: writers[split].bytes for split in SPLITS},
        skipped=dict(sorted(skipped.counts.items())),
        examples=dict(sorted(skipped.examples.items())),
        filled=filled,
        repeated={split: writers[split].repeated for split in SPLITS if split != "train"},
    )


def read_documents(folder: str | Path, split: Split) -> Iterator[str]:
    """The documents of one split of a written corpus, in order, one record batch in memory at a time.

    Raises:
        CorpusError: the file is missing or no Arrow file.
    """
    return (encoded.decode() for encoded in _read(Path(folder) / f"{split}.arrow"))


class _Writer:
    """Appends documents to one Arrow file in record batches of about ``BATCH_BYTES``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents = 0
        self.bytes = 0
        self.hash = hashlib.sha256()
        self.repeated = 0
        self._seen: set[bytes] | None = None if path.stem == "train" else set()
        """Digests of held-out documents; the training text may be too long to remember."""
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._file = pa.ipc.new_file(str(path), SCHEMA)

    def add(self, encoded: bytes) -> None:
        self.documents += 1
        self.bytes += len(encoded)
        digest = hashlib.sha256(encoded).digest()
        self.hash.update(digest)
        if self._seen is not None:
            self.repeated += digest in self._seen
            self._seen.add(digest)
        self._batch.append(encoded)
        self._batch_bytes += len(encoded)
        if self._batch_bytes >= BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._batch:
            column = pa.array(self._batch, type=pa.binary()).cast(pa.string())
            self._file.write_batch(pa.record_batch([column], schema=SCHEMA))
            self._batch, self._batch_bytes = [], 0


def _read(path: Path) -> Iterator[bytes]:
    try:
        with pa.memory_map(str(path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            for index in range(reader.num_record_batches):
                for value in reader.get_batch(index).column("text"):
                    yield value.as_buffer().to_pybytes()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise CorpusError(f"{path} is not a readable corpus file ({error}); write the corpus again") from error


def _position(encoded: bytes, seed: int) -> float:
    """A document's place in [0, 1), from its text and the seed alone."""
    digest = hashlib.sha256(f"{seed}\x1f".encode() + encoded).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _split_of(encoded: bytes, config: Corpus) -> Split:
    position = _position(encoded, config.split_seed)
    if position < config.test_fraction:
        return "test"
    return "validation" if position < config.test_fraction + config.validation_fraction else "train"


def _fill_empty_splits(config: Corpus, writers: dict[Split, _Writer], left_out: str) -> list[str]:
    wanted: dict[Split, float] = {
        "train": 1.0,
        "validation": config.validation_fraction,
        "test": config.test_fraction,
    }
    filled: list[str] = []
    for split, fraction in wanted.items():
        if fraction and not writers[split].documents:
            giver = max(SPLITS, key=lambda name: writers[name].documents)
            if not _move_lowest(config, writers, giver, split):
                total = sum(writer.documents for writer in writers.values())
                raise CorpusError(
                    f"corpus.source={config.source} has too few different documents ({total} in all, copies included) "
                    "to fill train, validation and test, which all are needed: to train on, to watch the training and "
                    f"to score; add text, or break it into several documents{left_out}"
                )
            filled.append(split)
    return filled


def _move_lowest(config: Corpus, writers: dict[Split, _Writer], giver: Split, receiver: Split) -> bool:
    """Move the document with the lowest hash, and its copies, so that equal documents still share a split.

    Returns:
        Whether the giver had two different documents, one to keep and one to give.
    """
    path = writers[giver].path
    positions = {_position(encoded, config.split_seed) for encoded in _read(path)}
    if len(positions) < 2:
        return False
    lowest = min(positions)
    rest = _Writer(path.with_suffix(".rest"))
    moved = _Writer(writers[receiver].path)
    for encoded in _read(path):
        (moved if _position(encoded, config.split_seed) == lowest else rest).add(encoded)
    rest.close()
    moved.close()
    rest.path = rest.path.replace(path)
    writers[giver], writers[receiver] = rest, moved
    return True
