"""What a result depends on, as canonical JSON, and its hash."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

IDENTITY_LENGTH = 16
"""Hex digits of an identity: 64 bits, enough that two of a million configurations never meet by chance."""


def canonical_json(value: Any) -> str:
    """Serialise ``value`` so that equal values give equal text.

    Raises:
        TypeError: for anything without one deterministic form (sets, functions, arbitrary objects, non-string keys).
        ValueError: for NaN and infinities, which JSON cannot say.
    """
    return json.dumps(_plain(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def identity(value: Any) -> str:
    """First 64 bits, in hex, of the SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:IDENTITY_LENGTH]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_identity(folder: Path) -> str:
    """Identity of all files below ``folder``, by their names in it and their contents; its own name does not enter.

    A file is read again only where its size or its time of change is another: a search asks for every trial.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return identity({str(path.relative_to(folder)): _digest_of(path, path.stat()) for path in files})


def _digest_of(path: Path, seen: os.stat_result) -> str:
    return _known_digest(path, seen.st_size, seen.st_mtime_ns, seen.st_ino)


@lru_cache(maxsize=4096)
def _known_digest(path: Path, size: int, changed_ns: int, inode: int) -> str:
    return file_digest(path)


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"), where)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: an identity cannot contain it")
        # 2 and 2.0 in a YAML file mean the same experiment.
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}: an identity needs string keys")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}: an identity cannot depend on it")
