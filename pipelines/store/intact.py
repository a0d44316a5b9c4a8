"""Whether a finished stage still is what was published: its files by size and SHA-256."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_bytes
from calm_bench.fingerprint import file_digest, identity

RECORD = "files.json"
"""Name of the record in a stage's folder. It lists every other file there, the provenance included."""


def record_files(folder: Path) -> None:
    """Write the record of all files below ``folder``: relative path -> bytes and SHA-256."""
    record = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_digest(folder / name)}
        for name in _names(folder)
        if name != RECORD
    }
    write_bytes(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def find_damage(folder: Path) -> list[str] | None:
    """What is wrong with the finished stage in ``folder``, one phrase each; empty if it is intact.

    Files that were added since are not damage. None where the stage has no record, because it was published by a
    version that wrote none.
    """
    if not (folder / RECORD).exists():
        return None
    try:
        record = _read(folder / RECORD)
    except ValueError as error:
        return [f"{RECORD} cannot be read ({error})"]
    damage = [problem for name, entry in record.items() if (problem := _damage_of(folder / name, name, entry))]
    if not damage and (other := _misplaced(folder)):
        damage.append(other)
    return damage


def _read(path: Path) -> dict[str, dict[str, Any]]:
    record = json.loads(path.read_text())
    if not isinstance(record, dict) or not all(
        isinstance(entry, dict) and entry.keys() >= {"bytes", "sha256"} for entry in record.values()
    ):
        raise ValueError("not a list of files with sizes and hashes")
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in record):
        raise ValueError("it names files outside its folder")
    return record


def _damage_of(path: Path, name: str, entry: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{name} has {size} bytes instead of {entry['bytes']}"
    # A size is compared in no time, so only files that pass it are read.
    return None if file_digest(path) == entry["sha256"] else f"{name} has other content than was published"


def _misplaced(folder: Path) -> str | None:
    """A whole folder under the name of another stage deceives whoever looks a stage up by its identity."""
    description = json.loads((folder / "config.json").read_text())
    named = {
        "kind": description["kind"],
        "revision": description["revision"],
        "config": description["config"],
        "inputs": {name: source["identity"] for name, source in description["inputs"].items()},
    }
    found = identity(named)
    if (folder.parent.name, folder.name) == (description["kind"], found):
        return None
    return f"it is the stage {description['kind']}/{found} under another name"


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
