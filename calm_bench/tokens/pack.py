"""Shards of exactly equal size, packed from the ids of parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from calm_bench.array_files import append_array
from calm_bench.corpora.mixture import WrittenMixture, tokens_to_take
from calm_bench.corpora.split_files import Split
from calm_bench.fingerprint import file_digest
from calm_bench.kept_folders import make_folder
from calm_bench.published_parts import PARTIAL, publish_part
from calm_bench.tokens.earlier_ids import EarlierIds
from calm_bench.tokens.token_part import TokenizerFound, TokenPartFound

ENDS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Taken:
    """What is taken of a part, from its beginning on."""

    part: TokenPartFound
    tokens: int
    is_cut: bool = False
    """Whether a source of a mixture ends here: the last id becomes EOS, whatever it was."""

    @property
    def documents(self) -> int:
        """Documents, the one among them that is cut."""
        if not self.is_cut:
            return self.part.documents
        return int(np.searchsorted(np.memmap(self.part.ends, np.int64, "r"), self.tokens)) + 1

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of text; where a part is cut, as many as its tokens have on average, EOS not counted."""
        if not self.is_cut:
            return self.part.bytes
        in_part = self.part.tokens - self.part.documents
        return round(self.part.bytes * (self.tokens - self.documents) / in_part) if in_part else 0


@dataclass(frozen=True)
class Slice:
    """Ids of one part."""

    part: TokenPartFound
    start: int
    count: int
    is_cut: bool = False
    """Whether its last id becomes EOS."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What its ids depend on, as JSON."""
        return (self.part.part.description, self.start, self.count, *(["cut"] if self.is_cut else []))


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
    def bytes(self) -> int:
        """UTF-8 bytes of text; where a part is cut, as many as its tokens have on average."""
        return sum(round(one.part.bytes * one.count / one.part.tokens) for one in self.shard.slices)

    @property
    def described(self) -> dict[str, Any]:
        """Its entry in the manifest."""
        file = f"{self.shard.split}/{self.shard.name}"
        return {"file": file, "rows": self.rows, "size": self.size, "sha256": self.sha256}


def take(parts: Sequence[TokenPartFound], mixture: WrittenMixture | None) -> list[Taken]:
    """What is taken of the parts of a split, in their order: all of it, or of a mixture each source's share."""
    if mixture is None:
        return [Taken(part, part.tokens) for part in parts]
    of_source: list[list[TokenPartFound]] = [[] for _ in mixture.shares]
    for part in parts:
        of_source[part.part.source].append(part)
    available = [sum(part.tokens for part in mine) for mine in of_source]
    taken: list[Taken] = []
    for mine, left in zip(of_source, tokens_to_take(mixture.shares, available), strict=True):
        for part in mine:
            if left > 0:
                taken.append(Taken(part, min(left, part.tokens), is_cut=left < part.tokens))
                left -= part.tokens
    return taken


def listed(split: Split, parts: Sequence[Taken]) -> Iterator[EarlierIds]:
    """What later tokens are told of the parts of a split; one that is cut is left out."""
    start = 0
    for taken in parts:
        part = taken.part
        if part.text and not taken.is_cut:
            yield EarlierIds(Path(), part.text, split, start, part.tokens, part.documents, part.bytes)
        start += taken.tokens


def shards_of(split: Split, parts: Sequence[Taken], shard_tokens: int) -> Iterator[Shard]:
    """The shards of a split, ``shard_tokens`` each and the last one shorter; one empty one where it has no tokens."""
    index, room = 0, shard_tokens
    slices: list[Slice] = []
    for taken in parts:
        start = 0
        while start < taken.tokens:
            count = min(room, taken.tokens - start)
            slices.append(Slice(taken.part, start, count, taken.is_cut and start + count == taken.tokens))
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
        values = _read(shard.slices, tokenizer)
        write_column(empty / shard.name, "tokens", values)
        return {"rows": len(values)}

    what = {"tokenizer": tokenizer.digest, "slices": [one.key for one in shard.slices]}
    published = publish_part(folder, f"{shard.split}-{shard.name.removesuffix('.arrow')}", what, make)
    file = published.files[shard.name]
    return ShardFound(shard, published.folder / shard.name, published.found["rows"], file["bytes"], file["sha256"])


def write_ends(folder: Path, split: Split, parts: Sequence[Taken]) -> dict[str, Any]:
    """Write ``<split>/documents.arrow``, the position after each document's EOS, and describe it for the manifest.

    The positions pass through a file that is mapped, since all of them together may be too many to hold.
    """
    plain = folder / PARTIAL / f"ends-{split}.bin"
    make_folder(plain.parent)
    before = 0
    with plain.open("wb") as ends:
        for taken in parts:
            with taken.part.ends.open("rb") as own:
                while len(values := np.fromfile(own, np.int64, ENDS_AT_ONCE)):
                    kept = values[values < taken.tokens] if taken.is_cut else values
                    append_array(ends, kept + before)
            before += taken.tokens
            if taken.is_cut:
                append_array(ends, np.array([before], np.int64))
    every = np.memmap(plain, np.int64, "r") if before else np.empty(0, np.int64)
    path = folder / split / "documents.arrow"
    make_folder(path.parent)
    write_column(path, "end", every)
    plain.unlink()
    described = {"rows": len(every), "size": path.stat().st_size, "sha256": file_digest(path)}
    return {"file": f"{split}/documents.arrow", **described}


def write_column(path: Path, name: str, values: npt.NDArray[Any]) -> None:
    """Write an Arrow file of one column in one record batch."""
    batch = pa.record_batch([pa.array(values)], names=[name])
    with pa.ipc.new_file(str(path), batch.schema) as file:
        file.write_batch(batch)


def _read(slices: Sequence[Slice], tokenizer: TokenizerFound) -> npt.NDArray[Any]:
    """The ids of all slices, one after the other."""
    # Memory is asked for once: touching it for the first time takes longer than the copy.
    values = np.empty(sum(one.count for one in slices), tokenizer.dtype)
    begin = 0
    for one in slices:
        ids = values[begin : begin + one.count]
        one.part.read_ids(one.start, ids)
        if one.is_cut:
            ids[-1] = tokenizer.eos_id
        begin += one.count
    return values
