"""The shards of a split, one at a time: in their folder, or in an object store from which they are brought there.

A folder of tokens may lack its shards where it says where they are kept (:mod:`calm_bench.kept_elsewhere`).
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy.typing as npt

from calm_bench.corpora import CorpusError, Split
from calm_bench.corpora.remote_file import ask, file_system
from calm_bench.kept_elsewhere import NotThere, kept_elsewhere
from calm_bench.tokens.stream import DamagedShard, described_split, map_column, read_manifest

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
        self._elsewhere = kept_elsewhere(self.folder)

    @property
    def rows(self) -> list[int]:
        """Tokens of each shard."""
        return [shard["rows"] for shard in self._shards]

    def bring(self, shard: int) -> npt.NDArray[Any]:
        """The ids of a shard, mapped; fetched before where it is kept elsewhere, and compared with its hash.

        Raises:
            NotThere: it cannot be fetched.
            DamagedShard: it is not what was written.
        """
        name: str = self._shards[shard]["file"]
        if name not in self._elsewhere:
            return map_column(self.folder, self._shards[shard], verify=True)
        damaged: DamagedShard | None = None
        for _ in range(ATTEMPTS):
            try:
                self._fetch(name)
                return map_column(self.folder, self._shards[shard], verify=True)
            except DamagedShard as error:
                # It was cut short on the way, or another worker of the training has let go of it meanwhile.
                damaged = error
                self.forget(shard)
        assert damaged is not None
        raise damaged

    def _fetch(self, name: str) -> None:
        path = self.folder / name
        if path.is_file():
            return
        arriving = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(self._elsewhere[name], arriving)
            arriving.replace(path)
        finally:
            arriving.unlink(missing_ok=True)

    def forget(self, shard: int) -> None:
        """Remove what was fetched of a shard; whoever has it mapped can go on reading."""
        name: str = self._shards[shard]["file"]
        if name in self._elsewhere:
            (self.folder / name).unlink(missing_ok=True)


def _download(url: str, path: Path) -> None:
    files, place = file_system(url)
    try:
        ask(url, lambda: files.get_file(place, str(path)))
    except CorpusError as error:
        raise NotThere(f"a shard of the tokens cannot be brought: {error}") from error
