"""What a result depends on, as canonical JSON, and its hash."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from calm_bench.walk import files_below

FileVersion = tuple[int, int, int, int, int]
"""Device, inode, size and both times of change."""
IDENTITY_LENGTH = 16
"""Hex digits of an identity: 64 bits, enough that two of a million configurations never meet by chance."""
SETTLED_S = 2.0
"""A file that changed later than this before it is looked at may change again within the same tick of its clock."""


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


def content_digest(path: Path) -> str:
    """As :func:`file_digest`, but a file is read again only where the system says that it may be another: a search asks
    for every trial.

    Its size and its time of change alone do not say so: whoever copies or unpacks files may set the time. The system
    itself sets the time of the last change of a file's entry, and gives what replaces it another number.
    """
    seen = path.stat()
    if time.time() - max(seen.st_mtime, seen.st_ctime) < SETTLED_S:
        return file_digest(path)
    return _known_digest(path, file_version(seen))


@lru_cache(maxsize=4096)
def _known_digest(path: Path, version: FileVersion) -> str:
    return file_digest(path)


def file_version(seen: os.stat_result) -> FileVersion:
    """What is another number of a file that was replaced, cut or written into."""
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def folder_identity(folder: Path) -> str:
    """Identity of all files below ``folder``, by their names in it and their contents; its own name does not enter.

    Links to folders are followed, as by who reads the folder.
    """
    return identity({file.relative_to(folder).as_posix(): content_digest(file) for file in files_below(folder)})


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
