"""Tokens read back: one long sequence per split, mapped from its shards without being loaded."""

from __future__ import annotations

import errno
import json
import mmap
import os
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from calm_bench.corpora import Split
from calm_bench.errors import RunError
from calm_bench.inside import is_inside
from calm_bench.known_digests import known_digest
from calm_bench.parallel_files import map_files
from calm_bench.tokens.tokenizer import TokensError

MANIFEST = "manifest.json"
FORMAT = 1

Ids = npt.NDArray[np.int64]


class DamagedShard(RunError, TokensError):
    """A file of the tokens that is missing or is not what was written; names it with expected and found hash."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(f"{path} is damaged: expected {expected}, found {found}; write the tokens again")
        self.path = path
        self.expected = expected
        self.found = found


@dataclass(frozen=True)
class TokenStream:
    """The tokens of one split as one sequence, documents in order, one EOS after each.

    Slicing copies only what it returns; the shards stay mapped and are shared between processes.
    """

    split: Split
    vocab_size: int
    eos_id: int
    digest: str
    """Identity of the split's content: a hash over the hashes of its files."""
    _shards: tuple[npt.NDArray[Any], ...]
    _starts: tuple[int, ...]
    """First position of each shard, then the total length."""
    _document_ends: Ids
    """Position after each document's EOS."""

    @classmethod
    def open(cls, folder: str | Path, split: Split, verify: bool = True) -> TokenStream:
        """Map the split ``split`` of what :func:`write_tokens` wrote into ``folder``.

        Args:
            verify: compare every file with its hash in the manifest, which one process on a node reads it for; sizes
                are always compared.

        Raises:
            DamagedShard: a file is missing, truncated or changed.
            TokensError: the folder has no manifest of this format, or no such split.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        described = described_split(folder, manifest, split)
        files = [*described["shards"], described["documents_file"]]
        columns = map_files(lambda file: map_column(folder, file, verify), files)
        *shards, document_ends = columns
        starts = [0, *np.cumsum([len(shard) for shard in shards], dtype=np.int64).tolist()]
        return cls(
            split=split,
            vocab_size=manifest["vocab_size"],
            eos_id=manifest["eos_id"],
            digest=described["digest"],
            _shards=tuple(shards),
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


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder of tokens.

    Raises:
        TokensError: there is none, or one that this version does not read.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        if manifest["format"] != FORMAT:
            raise TokensError(f"{path} has format {manifest['format']}, this version reads {FORMAT}; write it again")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, TokensError):
            raise
        raise TokensError(f"{folder} holds no readable tokens ({path.name}: {error}); write them again") from error
    return manifest


def described_split(folder: Path, manifest: dict[str, Any], split: Split) -> dict[str, Any]:
    """What the manifest of ``folder`` says of one split.

    Raises:
        TokensError: there is no such split.
    """
    if split not in manifest["splits"]:
        raise TokensError(f"{folder} has no split {split!r}; it has {', '.join(manifest['splits'])}")
    described: dict[str, Any] = manifest["splits"][split]
    return described


def map_column(folder: Path, described: dict[str, Any], verify: bool) -> npt.NDArray[Any]:
    """The one column of a file that a manifest describes, mapped.

    Raises:
        DamagedShard: it is missing, truncated or changed.
        TokensError: it is outside its folder, or no further file can be open.
    """
    try:
        return _mapped(folder, described, verify)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    import resource  # what has no such limits has no such module

    # Python keeps a mapped file open. Shells give a process 1024 files, and let it have many more.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        return _mapped(folder, described, verify)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise TokensError(
            f"{folder} has more shards than this process may have files open ({most:,}): raise the limit (ulimit -Hn) "
            "or tokens.shard_tokens, or train with shuffle_shards"
        ) from error


def _mapped(folder: Path, described: dict[str, Any], verify: bool) -> npt.NDArray[Any]:
    path = folder / described["file"]
    if not is_inside(folder, described["file"]):
        raise TokensError(f"{folder / MANIFEST} names {path}, which is outside its folder; write the tokens again")
    if not path.is_file():
        raise DamagedShard(path, f"sha256 {described['sha256']}", "no file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != described["size"]:
            raise DamagedShard(
                path,
                f"sha256 {described['sha256']} ({described['size']} bytes)",
                f"sha256 {known_digest(file)} ({size} bytes)",
            )
        if verify and (found := known_digest(file)) != described["sha256"]:
            raise DamagedShard(path, f"sha256 {described['sha256']}", f"sha256 {found}")
        try:
            # The very file that was looked at: its name may lead to another by now.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            column = pa.ipc.open_file(pa.py_buffer(mapped)).get_batch(0).column(0)
        except (OSError, ValueError, pa.ArrowException, IndexError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            raise DamagedShard(path, f"sha256 {described['sha256']}", f"no Arrow file ({error})") from error
    # Without copy the array borrows the mapped pages and keeps them alive. By DLPack: to_numpy would import pandas.
    values: npt.NDArray[Any] = np.from_dlpack(column)
    if len(values) != described["rows"]:
        raise DamagedShard(path, f"{described['rows']} rows", f"{len(values)} rows")
    return values
