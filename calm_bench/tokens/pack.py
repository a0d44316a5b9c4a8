"""Shards of exactly equal size, packed from the ids of parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from calm_bench.corpora.split_files import Split
from calm_bench.fingerprint import file_digest
from calm_bench.published_parts import PARTIAL, publish_part
from calm_bench.tokens.token_part import TokenizerFound, TokenPartFound

ENDS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Slice:
    """Ids of one part."""

    part: TokenPartFound
    start: int
    count: int


@dataclass(frozen=True)
class Shard:
    """A shard and where its tokens come from."""

    split: Split
    index: int
    slices: tuple[Slice, ...]

    @property
    def name(self) -> str:
        return f"shard-{self.index:05d}.arrow"


@dataclass(frozen=True)
class ShardFound:
    """A shard that lies on disk."""

    shard: Shard
    path: Path
    rows: int
    size: int
    sha256: str

    @property
    def described(self) -> dict[str, Any]:
        """Its entry in the manifest."""
        file = f"{self.shard.split}/{self.shard.name}"
        return {"file": file, "rows": self.rows, "size": self.size, "sha256": self.sha256}


def shards_of(split: Split, parts: Sequence[TokenPartFound], shard_tokens: int) -> Iterator[Shard]:
    """The shards of a split, ``shard_tokens`` each and the last one shorter; one empty one where it has no tokens."""
    index, room = 0, shard_tokens
    slices: list[Slice] = []
    for part in parts:
        start = 0
        while start < part.tokens:
            count = min(room, part.tokens - start)
            slices.append(Slice(part, start, count))
            start, room = start + count, room - count
            if not room:
                yield Shard(split, index, tuple(slices))
                index, room, slices = index + 1, shard_tokens, []
    # A split without tokens still has a shard: every split opens the same way.
    if slices or not index:
        yield Shard(split, index, tuple(slices))


def write_shard(tokenizer: TokenizerFound, folder: Path, shard: Shard) -> ShardFound:
    """Publish one shard in ``folder``, unless an earlier attempt has."""

    def make(empty: Path) -> dict[str, Any]:
        tokens = [_read(one, tokenizer.dtype) for one in shard.slices]
        values = np.concatenate(tokens or [np.empty(0, tokenizer.dtype)])
        write_column(empty / shard.name, "tokens", values)
        return {"rows": len(values)}

    slices = [(one.part.part.description, one.start, one.count) for one in shard.slices]
    what = {"tokenizer": tokenizer.digest, "slices": slices}
    published = publish_part(folder, f"{shard.split}-{shard.name.removesuffix('.arrow')}", what, make)
    file = published.files[shard.name]
    return ShardFound(shard, published.folder / shard.name, published.found["rows"], file["bytes"], file["sha256"])


def write_ends(folder: Path, split: Split, parts: Sequence[TokenPartFound]) -> dict[str, Any]:
    """Write ``<split>/documents.arrow``, the position after each document's EOS, and describe it for the manifest.

    The positions pass through a file that is mapped, since all of them together may be too many to hold.
    """
    plain = folder / PARTIAL / f"ends-{split}.bin"
    plain.parent.mkdir(parents=True, exist_ok=True)
    before = 0
    with plain.open("wb") as ends:
        for part in parts:
            with part.ends.open("rb") as own:
                while len(values := np.fromfile(own, np.int64, ENDS_AT_ONCE)):
                    (values + before).tofile(ends)
            before += part.tokens
    every = np.memmap(plain, np.int64, "r") if before else np.empty(0, np.int64)
    path = folder / split / "documents.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_column(path, "end", every)
    plain.unlink()
    described = {"rows": len(every), "size": path.stat().st_size, "sha256": file_digest(path)}
    return {"file": f"{split}/documents.arrow", **described}


def write_column(path: Path, name: str, values: npt.NDArray[Any]) -> None:
    """Write an Arrow file of one column in one record batch."""
    batch = pa.record_batch([pa.array(values)], names=[name])
    with pa.ipc.new_file(str(path), batch.schema) as file:
        file.write_batch(batch)


def _read(one: Slice, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.fromfile(one.part.ids, dtype, one.count, offset=one.start * dtype.itemsize)
