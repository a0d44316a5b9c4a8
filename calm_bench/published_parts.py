"""Work done in parts: each is published whole, with hashes, so that a kill loses only the parts under way.

In the folder of the work lie, until it is finished,

    parts/<name>/       a published part: its files, and part.json with their hashes and what was found
    partial/            parts under way, and what killed processes left of theirs

What is made of the parts lies beside them.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from calm_bench.atomic import remove_unfinished
from calm_bench.fingerprint import file_digest, identity
from calm_bench.kept_folders import make_folder

PARTS, PARTIAL = "parts", "partial"
SCRATCH = (PARTS, PARTIAL)
"""Names in the folder of the work that nobody needs once it is finished."""
RECORD = "part.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, a quota or a limit that leaves no room."""

Part = TypeVar("Part")
Found = TypeVar("Found")


class Published(NamedTuple):
    """A part that lies on disk."""

    folder: Path
    found: dict[str, Any]
    """What its maker found."""
    files: dict[str, dict[str, Any]]
    """``bytes`` and ``sha256`` of its files by path."""


class PartMapper(Protocol):
    """Does the work of many parts, wherever there are processes for it."""

    def __call__(self, work: Callable[[Part], Found], parts: Sequence[Part]) -> Generator[Found, None, None]:
        """What ``work`` returns for each of ``parts``, in whatever order they are done.

        Who has heard enough closes the generator. ``work``, parts and what is found can be pickled.
        """
        ...


def in_this_process(work: Callable[[Part], Found], parts: Sequence[Part]) -> Generator[Found, None, None]:
    """The :class:`PartMapper` of one process: one part after the other, each when it is asked for."""
    yield from map(work, parts)


def remove_unfinished_parts(folder: Path) -> None:
    """Remove what killed processes left of their parts and files; for whoever begins the work and has it alone."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    if folder.is_dir():
        remove_unfinished(folder, older_than_s=-1.0)


def publish_part(folder: Path, name: str, what: Any, make: Callable[[Path], Mapping[str, Any]]) -> Published:
    """The part ``name``, made now or in an earlier attempt.

    Args:
        folder: of the whole work; it is there, and is not made again by workers when somebody has moved it.
        what: all that the part depends on, as JSON: a part of something else that has its name is replaced.
        make: writes the part's files into the empty folder that it is given, and returns JSON.

    Raises:
        OSError: the disk is full; says of which folder.
    """
    key = identity(what)
    published = folder / PARTS / name
    if (before := read_part(published, key)) is not None:
        return before
    unfinished = folder / PARTIAL / f"{name}-{secrets.token_hex(4)}"
    unfinished.parent.mkdir(exist_ok=True)
    unfinished.mkdir()
    try:
        found = dict(make(unfinished))
        files = {
            file.relative_to(unfinished).as_posix(): {"bytes": file.stat().st_size, "sha256": file_digest(file)}
            for file in unfinished.rglob("*")
            if file.is_file()
        }
        # Not flushed to disk: what a power cut leaves of it is told by the hashes.
        (unfinished / RECORD).write_text(json.dumps({"key": key, "files": files, "found": found}))
        _move(unfinished, published, key)
    except OSError as error:
        if error.errno not in FULL:
            raise
        # A writer of a file does not know its name.
        advice = f"{os.strerror(error.errno)}: make room, and the same command goes on from the parts that are done"
        raise OSError(error.errno, advice, str(folder)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Published(published, found, files)


def read_part(published: Path, key: str) -> Published | None:
    """The part as it was published; None where it is missing, damaged or of something else."""
    try:
        record = json.loads((published / RECORD).read_bytes())
        part = Published(published, record["found"], record["files"])
        is_whole = record["key"] == key and all(_is_intact(published / name, file) for name, file in part.files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return part if is_whole else None


def link(file: Path, name: Path) -> None:
    """Let the finished work have a file of a part under ``name``, without a copy where the file system can."""
    make_folder(name.parent)
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)


def _is_intact(path: Path, file: Mapping[str, Any]) -> bool:
    return bool(path.stat().st_size == file["bytes"]) and bool(file_digest(path) == file["sha256"])


def _move(unfinished: Path, published: Path, key: str) -> None:
    published.parent.mkdir(exist_ok=True)
    if published.exists():
        # What is damaged goes by a rename too, so that nobody reads half of it.
        published.rename(unfinished.with_name(f"{unfinished.name}-replaced"))
        shutil.rmtree(unfinished.with_name(f"{unfinished.name}-replaced"), ignore_errors=True)
    try:
        unfinished.rename(published)
    except OSError:
        # A worker that was taken for lost has published the same part meanwhile: equal work, its stands.
        if read_part(published, key) is None:
            raise
