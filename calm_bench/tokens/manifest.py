"""What the manifest of a folder of tokens says, and its files mapped as it describes them."""

from __future__ import annotations

import errno
import json
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from calm_bench.corpora import Split
from calm_bench.errors import RunError
from calm_bench.inside import is_inside
from calm_bench.known_digests import known_digest
from calm_bench.tokens.tokenizer import TokensError

MANIFEST = "manifest.json"
FORMAT = 1


class DamagedShard(RunError, TokensError):
    """A file of the tokens that is missing or is not what was written; names it with expected and found hash."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(f"{path} is damaged: expected {expected}, found {found}; write the tokens again")
        self.path = path
        self.expected = expected
        self.found = found


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
            "or tokens.shard_tokens, or set model.training.shuffle_shards and autoencoder.training.shuffle_shards"
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
