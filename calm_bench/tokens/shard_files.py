"""The shards of a split, one at a time: in their folder, or in an object store from which they are brought there.

A folder of tokens may lack its shards where it says where they are kept (:mod:`calm_bench.kept_elsewhere`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy.typing as npt

from calm_bench.corpora import Split
from calm_bench.corpora.bring_file import fetch_file
from calm_bench.kept_elsewhere import kept_elsewhere
from calm_bench.tokens.manifest import DamagedShard, described_split, map_column, read_manifest

ATTEMPTS = 3
"""At fetching a shard that is not what was written."""


class ShardFiles:
    """What :func:`calm_bench.tokens.write_tokens` wrote of one split, without any of its ids.

    Raises:
        TokensError: the folder has no manifest of this format, or no such split.
        NotThere: it does not say where its shards are.
    """

    def __init__(self, folder: str | Path, split: Split) -> None:
        self.folder = Path(folder)
        self.split = split
        manifest = read_manifest(self.folder)
        described = described_split(self.folder, manifest, split)
        self.vocab_size: int = manifest["vocab_size"]
        self.eos_id: int = manifest["eos_id"]
        self.digest: str = described["digest"]
        """Identity of the split's content."""
        self._shards: list[dict[str, Any]] = described["shards"]
        self._documents_file: dict[str, Any] = described["documents_file"]
        self._elsewhere = kept_elsewhere(self.folder)

    @property
    def rows(self) -> list[int]:
        """Tokens of each shard."""
        return [shard["rows"] for shard in self._shards]

    @property
    def are_elsewhere(self) -> bool:
        """Whether any shard is."""
        return any(shard["file"] in self._elsewhere for shard in self._shards)

    def bring(self, shard: int) -> npt.NDArray[Any]:
        """The ids of a shard, mapped; fetched before where it is kept elsewhere, and compared with its hash.

        Raises:
            NotThere: it cannot be fetched.
            DamagedShard: it is not what was written.
        """
        return self._bring(self._shards[shard])

    def bring_document_ends(self, verify: bool = True) -> npt.NDArray[Any]:
        """The position after each document's EOS; as :meth:`bring`, and compared with its hash if ``verify``."""
        return self._bring(self._documents_file, verify)

    def _bring(self, described: dict[str, Any], verify: bool = True) -> npt.NDArray[Any]:
        name: str = described["file"]
        if name not in self._elsewhere:
            return map_column(self.folder, described, verify)
        damaged: DamagedShard | None = None
        for _ in range(ATTEMPTS):
            try:
                fetch_file(self.folder, name, self._elsewhere[name].url)
                return map_column(self.folder, described, verify=True)
            except DamagedShard as error:
                # It was cut short on the way, or another worker of the training has let go of it meanwhile.
                damaged = error
                (self.folder / name).unlink(missing_ok=True)
        assert damaged is not None
        raise damaged

    def forget(self, shard: int) -> None:
        """Remove what was fetched of a shard; whoever has it mapped can go on reading."""
        name: str = self._shards[shard]["file"]
        if name in self._elsewhere:
            (self.folder / name).unlink(missing_ok=True)


class BroughtShards(Sequence[npt.NDArray[Any]]):
    """The ids of all shards of a split, each brought when it is first asked for and kept from then on."""

    def __init__(self, files: ShardFiles) -> None:
        self._files = files
        self._brought: dict[int, npt.NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self._files.rows)

    @overload
    def __getitem__(self, shard: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, shard: slice) -> list[npt.NDArray[Any]]: ...
    def __getitem__(self, shard: int | slice) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        """
        Raises:
            NotThere, DamagedShard: as :meth:`ShardFiles.bring`.
        """
        if isinstance(shard, slice):
            return [self[index] for index in range(len(self))[shard]]
        if shard not in self._brought:
            self._brought[shard] = self._files.bring(shard)
        return self._brought[shard]
