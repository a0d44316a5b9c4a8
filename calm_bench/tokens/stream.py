"""Tokens read back: one long sequence per split, mapped from its shards without being loaded."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calm_bench.corpora import Split
from calm_bench.parallel_files import map_files
from calm_bench.tokens.manifest import described_split, map_column, read_manifest
from calm_bench.tokens.shard_files import BroughtShards, ShardFiles
from calm_bench.tokens.tokenizer import TokensError

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenStream:
    """The tokens of one split as one sequence, documents in order, one EOS after each.

    Slicing copies only what it returns; the shards stay mapped and are shared between processes. Of a folder that keeps
    its shards elsewhere, those are brought of which ids are asked for.
    """

    split: Split
    vocab_size: int
    eos_id: int
    digest: str
    """Identity of the split's content: a hash over the hashes of its files."""
    _shards: Sequence[npt.NDArray[Any]]
    _starts: tuple[int, ...]
    """First position of each shard, then the total length."""
    _document_ends: Ids
    """Position after each document's EOS."""

    @classmethod
    def open(cls, folder: str | Path, split: Split, verify: bool = True) -> TokenStream:
        """Map the split ``split`` of what :func:`write_tokens` wrote into ``folder``.

        Args:
            verify: compare every file with its hash in the manifest, which one process on a node reads it for; sizes
                are always compared, and what is kept elsewhere with its hash when it is brought.

        Raises:
            DamagedShard: a file is missing, truncated or changed; so may whoever asks for ids that are brought.
            TokensError: the folder has no manifest of this format, or no such split.
            NotThere: a file that is kept elsewhere cannot be brought; likewise.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        described = described_split(folder, manifest, split)
        files = ShardFiles(folder, split)
        document_ends = files.bring_document_ends(verify)
        shards: Sequence[npt.NDArray[Any]]
        if files.are_elsewhere:
            shards = BroughtShards(files)
        else:
            shards = map_files(lambda file: map_column(folder, file, verify), described["shards"])
        starts = [0, *np.cumsum(files.rows, dtype=np.int64).tolist()]
        return cls(
            split=split,
            vocab_size=manifest["vocab_size"],
            eos_id=manifest["eos_id"],
            digest=described["digest"],
            _shards=shards,
            _starts=tuple(starts),
            _document_ends=document_ends,
        )

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def num_documents(self) -> int:
        return len(self._document_ends)

    @property
    def document_ends(self) -> Ids:
        """Position after each document's EOS, ``[D]``."""
        return self._document_ends

    def __getitem__(self, span: slice) -> Ids:
        """``stream[a:b]``: the ids from ``a`` to before ``b`` as int64, with the slicing rules of a list."""
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise TokensError("a token stream is sliced in steps of 1")
        out = np.empty(max(0, stop - start), dtype=np.int64)
        self._copy(start, out)
        return out

    def gather(self, starts: Ids, length: int) -> Ids:
        """``[len(starts), length]``: the windows of ``length`` tokens that begin at ``starts``."""
        if len(starts) and not (int(starts.min()) >= 0 and int(starts.max()) + length <= len(self)):
            raise IndexError(f"a window of {length} tokens at {starts} leaves the stream of {len(self)} tokens")
        out = np.empty((len(starts), length), dtype=np.int64)
        for row, start in zip(out, starts.tolist(), strict=True):
            self._copy(start, row)
        return out

    def document_of(self, positions: npt.ArrayLike) -> Ids:
        """Index of the document that each token position lies in; an EOS belongs to the document it ends."""
        indices = np.asarray(positions, dtype=np.int64)
        if indices.size and not (int(indices.min()) >= 0 and int(indices.max()) < len(self)):
            raise IndexError(f"positions must lie in [0, {len(self)})")
        return np.searchsorted(self._document_ends, indices, side="right").astype(np.int64)

    def copied_documents(self) -> npt.NDArray[np.bool_]:
        """Whether an earlier document has the same tokens, ``[D]``; reads those documents that are equally long."""
        ends = self._document_ends
        begins = np.concatenate([[0], ends[:-1]])
        _, group, counts = np.unique(ends - begins, return_inverse=True, return_counts=True)
        copied = np.zeros(len(ends), np.bool_)
        seen: set[tuple[int, bytes]] = set()
        for document in np.flatnonzero(counts[group] > 1).tolist():
            tokens = self[int(begins[document]) : int(ends[document])]
            key = len(tokens), hashlib.sha256(tokens.tobytes()).digest()
            copied[document] = key in seen
            seen.add(key)
        return copied

    def _copy(self, start: int, out: Ids) -> None:
        """Fill ``out`` with the tokens from ``start`` on, over as many shards as it takes."""
        done = 0
        shard = bisect_right(self._starts, start) - 1
        while done < len(out):
            offset = start + done - self._starts[shard]
            piece = self._shards[shard][offset : offset + len(out) - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
            shard += 1
