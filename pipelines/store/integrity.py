"""Whether a finished stage still is what was published: its files by size and SHA-256."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calm_bench.atomic import is_temporary, write_bytes
from calm_bench.fingerprint import file_digest, identity
from calm_bench.json_text import parse_json_text
from calm_bench.parallel_files import map_files
from pipelines.common.record_file import RecordError, damaged
from pipelines.store.names import stays_inside
from pipelines.study.stage_folder import REMEDY, StageRecord

RECORD = "files.json"
"""Name of the record in a stage's folder. It lists every other file there, the provenance included."""


def record_files(folder: Path, leave_out: Sequence[str] = ()) -> None:
    """Write the record of the files below ``folder``: relative path -> bytes and SHA-256.

    Args:
        leave_out: names in ``folder`` that do not belong to the stage; half-written files never do.
    """
    names = [name for name in _names(folder) if name != RECORD and name.partition("/")[0] not in leave_out]
    digests = map_files(file_digest, [folder / name for name in names])
    record = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in zip(names, digests, strict=True)
    }
    write_bytes(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def recorded_names(folder: Path) -> list[str]:
    """The files that the record of ``folder`` lists, and the record itself.

    Raises:
        FileNotFoundError, RecordError: there is no record, or none that can be read.
    """
    return [*_read(folder / RECORD), RECORD]


def recorded_digests(folder: Path, below: str) -> dict[str, str] | None:
    """SHA-256 of the files that were published below ``folder/below``, by path relative to that; None without record.

    Raises:
        RecordError: the record cannot be read.
    """
    if not (folder / RECORD).exists():
        return None
    inside = f"{below}/"
    entries = _read(folder / RECORD).items()
    return {name.removeprefix(inside): entry["sha256"] for name, entry in entries if name.startswith(inside)}


def check_file(folder: Path, name: str) -> None:
    """Compare one file of the finished stage in ``folder`` with what was published; nothing where no record has it.

    Raises:
        RecordError: it is something else, or the record cannot be read.
    """
    if not (folder / RECORD).exists() or (entry := _read(folder / RECORD).get(name)) is None:
        return
    if (problem := _damage_of(folder / name, name, entry, folder.resolve())) is not None:
        raise damaged(folder / name, problem, REMEDY)


def verify_folder(folder: Path) -> list[str] | None:
    """What is wrong with the finished stage in ``folder``, one phrase each; empty if it is intact.

    Files that were added since are no fault. None where the stage has no record, because it was published by a
    version that wrote none.
    """
    problems = compare_files(folder)
    if problems == [] and (other := _misplaced(folder)):
        return [other]
    return problems


def compare_files(folder: Path) -> list[str] | None:
    """As :func:`verify_folder`, for a folder of any name."""
    if not (folder / RECORD).exists():
        return None
    try:
        record = _entries(folder / RECORD)
    except ValueError as error:
        return [f"{RECORD} cannot be read ({error})"]
    whole = folder.resolve()
    found = map_files(lambda named: _damage_of(folder / named[0], *named, whole), record.items())
    return [problem for problem in found if problem]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return _entries(path)
    except ValueError as error:
        raise damaged(path, str(error), REMEDY) from None


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    record = parse_json_text(path.read_text())
    if not isinstance(record, dict) or not all(
        isinstance(entry, dict) and entry.keys() >= {"bytes", "sha256"} for entry in record.values()
    ):
        raise ValueError("not a list of files with sizes and hashes")
    if not all(stays_inside(name) for name in record):
        raise ValueError("it names files outside its folder")
    return record


def _damage_of(path: Path, name: str, entry: dict[str, Any], whole: Path) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    if not path.resolve().is_relative_to(whole):
        return f"{name} is a link that leads out of the stage's folder"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{name} has {size} bytes instead of {entry['bytes']}"
    # A size is compared in no time, so only files that pass it are read.
    return None if file_digest(path) == entry["sha256"] else f"{name} has other content than was published"


def _misplaced(folder: Path) -> str | None:
    """A whole folder under the name of another stage deceives whoever looks a stage up by its identity."""
    try:
        record = StageRecord.load(folder)
    except (FileNotFoundError, RecordError) as error:
        return str(error)
    named = {
        "kind": record.kind,
        "revision": record.revision,
        "config": record.config,
        "inputs": {name: source.identity for name, source in record.inputs.items()},
    }
    found = identity(named)
    if (folder.parent.name, folder.name) == (record.kind, found):
        return None
    return f"it is the stage {record.kind}/{found} under another name"


def _names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not is_temporary(path))
    return sorted(path.relative_to(folder).as_posix() for path in files)
