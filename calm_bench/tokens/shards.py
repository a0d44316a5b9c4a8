"""Tokens written: Arrow shards of fixed size, where documents end, and a manifest of hashes."""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from calm_bench.config import Tokens
from calm_bench.corpora import SPLITS, Split, read_documents
from calm_bench.fingerprint import file_digest
from calm_bench.tokens.choose_tokenizer import build_tokenizer
from calm_bench.tokens.stream import FORMAT, MANIFEST
from calm_bench.tokens.tokenizer import Tokenizer, TokensError

BATCH_DOCUMENTS = 256


@dataclass(frozen=True)
class TokensReport:
    """What was written."""

    tokenizer: str
    tokenizer_digest: str
    vocab_size: int
    eos_id: int
    dtype: str
    tokens: dict[str, int]
    """Tokens by split, with one EOS per document."""
    documents: dict[str, int]
    bytes_per_token: dict[str, float | None]
    """UTF-8 bytes of text per token by split, EOS not counted; None for an empty split."""
    shards: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def write_tokens(config: Tokens, corpus_folder: str | Path, folder: str | Path) -> TokensReport:
    """Tokenise the corpus in ``corpus_folder`` into ``folder``.

    Writes ``tokenizer/``, ``<split>/shard-00000.arrow`` and so on (column ``tokens``, uint16 or uint32, one record
    batch, ``config.shard_tokens`` tokens each, the last fewer), ``<split>/documents.arrow`` (column ``end``) and, last,
    ``manifest.json``. One EOS follows each document.

    Raises:
        TokenizerError: the tokenizer cannot be built.
        CorpusError: the corpus cannot be read.
    """
    folder = Path(folder)
    tokenizer = build_tokenizer(config, read_documents(corpus_folder, "train"))
    tokenizer.save(folder / "tokenizer")
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    splits: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        writer = _SplitWriter(folder, split, config.shard_tokens, dtype)
        documents = read_documents(corpus_folder, split)
        while batch := list(islice(documents, BATCH_DOCUMENTS)):
            for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
                writer.add(_checked(ids, tokenizer), len(text.encode()))
        splits[split] = writer.close()
    manifest = {
        "format": FORMAT,
        "tokenizer": {"name": tokenizer.name, "digest": tokenizer.digest},
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "dtype": dtype.name,
        "splits": splits,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return TokensReport(
        tokenizer=tokenizer.name,
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        dtype=dtype.name,
        tokens={split: described["tokens"] for split, described in splits.items()},
        documents={split: described["documents"] for split, described in splits.items()},
        bytes_per_token={split: _ratio(described) for split, described in splits.items()},
        shards={split: len(described["shards"]) for split, described in splits.items()},
    )


def _checked(ids: list[int], tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    array = np.asarray([*ids, tokenizer.eos_id], dtype=np.int64)
    if int(array.max()) >= tokenizer.vocab_size or int(array.min()) < 0:
        raise TokensError(
            f"tokenizer {tokenizer.name} gave the id {int(array.max())} outside its vocabulary of "
            f"{tokenizer.vocab_size}"
        )
    return array


def _ratio(described: dict[str, Any]) -> float | None:
    plain = described["tokens"] - described["documents"]
    return described["bytes"] / plain if plain else None


class _SplitWriter:
    """Packs the documents of one split into shards of exactly ``shard_tokens``, the last one shorter."""

    def __init__(self, folder: Path, split: Split, shard_tokens: int, dtype: np.dtype[Any]) -> None:
        self._folder = folder
        self._split = split
        self._shard_tokens = shard_tokens
        self._dtype = dtype
        self._waiting = bytearray()
        """Tokens of the next shard, as they lie on disk; an array per document takes a hundred bytes more each."""
        self._tokens = 0
        self._bytes = 0
        self._document_ends = array("q")
        """Eight bytes per document, where a list of Python integers takes some forty."""
        self._shards: list[dict[str, Any]] = []
        (folder / split).mkdir(parents=True, exist_ok=True)

    def add(self, ids: npt.NDArray[np.int64], num_bytes: int) -> None:
        """Append one document's ids, EOS included."""
        self._tokens += len(ids)
        self._bytes += num_bytes
        self._document_ends.append(self._tokens)
        self._waiting += ids.astype(self._dtype).tobytes()
        size = self._shard_tokens * self._dtype.itemsize
        while len(self._waiting) >= size:
            self._write_shard(size)

    def close(self) -> dict[str, Any]:
        """Write what is left and describe the split for the manifest."""
        # A split without tokens still has one (empty) shard: every split opens the same way.
        if self._waiting or not self._shards:
            self._write_shard(len(self._waiting))
        ends = np.asarray(self._document_ends, dtype=np.int64)
        documents_file = self._write("documents.arrow", "end", ends)
        hashes = [file["sha256"] for file in [*self._shards, documents_file]]
        return {
            "tokens": self._tokens,
            "documents": len(ends),
            "bytes": self._bytes,
            "digest": hashlib.sha256("".join(hashes).encode()).hexdigest(),
            "shards": self._shards,
            "documents_file": documents_file,
        }

    def _write_shard(self, size: int) -> None:
        """Write the first ``size`` bytes of waiting tokens as the next shard."""
        tokens = np.frombuffer(bytes(self._waiting[:size]), dtype=self._dtype)
        del self._waiting[:size]
        self._shards.append(self._write(f"shard-{len(self._shards):05d}.arrow", "tokens", tokens))

    def _write(self, name: str, column: str, values: npt.NDArray[Any]) -> dict[str, Any]:
        path = self._folder / self._split / name
        batch = pa.record_batch([pa.array(values)], names=[column])
        with pa.ipc.new_file(str(path), batch.schema) as file:
            file.write_batch(batch)
        return {
            "file": f"{self._split}/{name}",
            "rows": len(values),
            "size": path.stat().st_size,
            "sha256": file_digest(path),
        }
