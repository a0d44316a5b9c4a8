"""One part of a corpus as token ids, as they will lie in shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calm_bench.array_files import append_array
from calm_bench.config import Tokens
from calm_bench.corpora.mixture import read_mixture
from calm_bench.corpora.split_files import (
    SPLITS,
    Split,
    num_batches,
    read_batches,
    read_documents,
    split_files,
    text_bounds,
)
from calm_bench.published_parts import publish_part
from calm_bench.tokens.byte_ids import read_byte_ids, write_byte_ends
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from calm_bench.tokens.choose_tokenizer import build_tokenizer, load_tokenizer
from calm_bench.tokens.earlier_ids import find_ids
from calm_bench.tokens.fast_encoder import FastEncoder
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from calm_bench.tokens.tokenizer import Tokenizer, TokensError

PART_BATCHES = 4
"""Record batches of a corpus in a part: 16 MiB of text, some seven seconds with a Hugging Face tokenizer."""
TEXT_AT_ONCE = 2**20
"""Bytes of text that are encoded at once; what a tokenizer holds of them takes some fifty times as much."""
DOCUMENTS_AT_ONCE = 2**16

Ids = npt.NDArray[Any]


@dataclass(frozen=True)
class TokenizerFound:
    """A tokenizer that was built and saved."""

    folder: Path
    name: str
    digest: str
    vocab_size: int
    eos_id: int
    by_fast_encoder: bool = False
    """Whether the library below transformers gives the same ids of what was saved."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of ids on disk."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)


@dataclass(frozen=True)
class TokenPart:
    """Record batches of one file of a corpus."""

    split: Split
    index: int
    """Among the parts of its split."""
    path: Path
    start: int
    stop: int
    version: tuple[int, int]
    """Size and time of the file, by which another one of its name is told from it."""
    source: int = 0
    """Which source of a mixture the file is of."""

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}"

    @property
    def description(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class TokenPartFound:
    """What a part holds."""

    part: TokenPart
    folder: Path
    tokens: int
    """With one EOS for each document."""
    documents: int
    bytes: int
    text: str = ""
    """Digest of its text; empty where nobody asks for it: of bytes, and in a part that an older version published."""

    @property
    def ends(self) -> Path:
        """Position after each document's EOS in the part, eight bytes each."""
        return self.folder / "ends.bin"

    def read_ids(self, start: int, out: Ids) -> None:
        """Fill ``out`` with the ids from position ``start`` on.

        Raises:
            OSError: the file of ids ends too early.
            CorpusError: the text has changed.
        """
        path = self.folder / "ids.bin"
        if not path.is_file():
            read_byte_ids(read_batches(self.part.path, self.part.start, self.part.stop), start, out)
            return
        with path.open("rb") as file:
            file.seek(start * out.itemsize)
            if file.readinto(out.data) != out.nbytes:
                raise OSError(f"{path} ends before its {start + len(out)} ids")


def token_parts(corpus_folder: Path) -> Iterator[TokenPart]:
    """The parts of a corpus, in the order of its documents.

    Raises:
        CorpusError: a file of it is missing or no Arrow file.
    """
    mixture = read_mixture(corpus_folder)
    for split in SPLITS:
        index = 0
        for number, path in enumerate(split_files(corpus_folder, split)):
            source = 0 if mixture is None else mixture.source_of(split, number)
            batches = num_batches(path)
            status = path.stat()
            for start in range(0, batches, PART_BATCHES):
                stop = min(start + PART_BATCHES, batches)
                yield TokenPart(split, index, path, start, stop, (status.st_size, status.st_mtime_ns), source)
                index += 1


def make_tokenizer(config: Tokens, corpus_folder: Path, folder: Path) -> TokenizerFound:
    """Publish the tokenizer in ``folder``, unless an earlier attempt has.

    Raises:
        TokenizerError: it cannot be built.
        CorpusError: it is trained on the corpus, which cannot be read.
    """

    def make(empty: Path) -> dict[str, Any]:
        tokenizer = build_tokenizer(config, read_documents(corpus_folder, "train"))
        tokenizer.save(empty)
        fields = ("name", "digest", "vocab_size", "eos_id")
        by_fast_encoder = isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.fast_encoder_agrees(empty)
        return {field: getattr(tokenizer, field) for field in fields} | {"by_fast_encoder": by_fast_encoder}

    made_from: list[Any] = []
    if config.tokenizer == "bpe":
        made_from = [part.description for part in token_parts(corpus_folder)]
    elif (given := Path(config.tokenizer).expanduser()).is_dir():
        made_from = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(given.rglob("*"))]
    what = {"tokens": config, "made_from": made_from}
    published = publish_part(folder, "tokenizer", what, make)
    return TokenizerFound(published.folder, **published.found)


def write_token_part(
    tokenizer: TokenizerFound, folder: Path, earlier: tuple[Path, ...], part: TokenPart
) -> TokenPartFound:
    """Publish the ids of one part in ``folder``, unless an earlier attempt has; from ``earlier`` tokens that have them.

    Of bytes only where documents end: their ids are read from the text.

    Args:
        earlier: as :func:`calm_bench.tokens.earlier_ids.folders_of` gives them.

    Raises:
        TokensError: the tokenizer gives ids outside its vocabulary.
        CorpusError: the part cannot be read.
    """

    def make(empty: Path) -> dict[str, Any]:
        if tokenizer.digest == ByteTokenizer.digest:
            with (empty / "ends.bin").open("wb") as ends:
                return write_byte_ends(read_batches(part.path, part.start, part.stop), ends)
        text = _text_digest(part)
        known = find_ids(earlier, tokenizer.digest, text)
        taken = None if known is None else known.take_over(empty, tokenizer.dtype)
        return (taken or _write(tokenizer, part, empty)) | {"text": text}

    what = {"tokenizer": tokenizer.digest, "part": part.description}
    published = publish_part(folder, part.name, what, make)
    return TokenPartFound(part, published.folder, **published.found)


def _write(found: TokenizerFound, part: TokenPart, folder: Path) -> dict[str, Any]:
    encoder = _encoder(found)
    tokens = documents = num_bytes = 0
    with (folder / "ids.bin").open("wb") as ids_file, (folder / "ends.bin").open("wb") as ends_file:
        for texts, text_bytes in _texts(part):
            ids, lengths = encoder.encode_documents(texts)
            check_ids(ids, found)
            append_array(ids_file, ids.astype(found.dtype, copy=False))
            append_array(ends_file, np.cumsum(lengths) + tokens)
            tokens += len(ids)
            documents += len(texts)
            num_bytes += text_bytes
    return {"tokens": tokens, "documents": documents, "bytes": num_bytes}


def _text_digest(part: TokenPart) -> str:
    """SHA-256 over the record batches of a part, each by where its documents end and what they are."""
    digest = hashlib.sha256()
    for column in read_batches(part.path, part.start, part.stop):
        _, ends, text = column.buffers()
        digest.update(f"{len(column)} {ends.size} {text.size}\n".encode())
        digest.update(ends)
        digest.update(text)
    return digest.hexdigest()


def check_ids(ids: Ids, tokenizer: Tokenizer | TokenizerFound) -> None:
    """
    Raises:
        TokensError: an id lies outside the tokenizer's vocabulary.
    """
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size:
        raise TokensError(
            f"tokenizer {tokenizer.name} gave the id {int(ids.max())} outside its vocabulary of {tokenizer.vocab_size}"
        )


def _texts(part: TokenPart) -> Iterator[tuple[list[str], int]]:
    """The documents of a part, about ``TEXT_AT_ONCE`` bytes together, and how many bytes they are."""
    for column in read_batches(part.path, part.start, part.stop):
        offsets = text_bounds(column)
        begin = 0
        while begin < len(column):
            full = int(np.searchsorted(offsets, offsets[begin] + TEXT_AT_ONCE, side="right")) - 1
            end = min(max(full, begin + 1), begin + DOCUMENTS_AT_ONCE, len(column))
            yield column.slice(begin, end - begin).to_pylist(), int(offsets[end] - offsets[begin])
            begin = end


@lru_cache(maxsize=1)
def _encoder(tokenizer: TokenizerFound) -> Tokenizer | FastEncoder:
    """What makes ids of documents, loaded once in a process; the digest tells it from another in the same place."""
    if tokenizer.by_fast_encoder:
        return FastEncoder.load(tokenizer.folder, tokenizer.eos_id)
    return load_tokenizer(tokenizer.folder)
