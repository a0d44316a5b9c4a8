"""A folder some of whose files are kept elsewhere: ``elsewhere.json`` in it says where, by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from calm_bench.atomic import write_json
from calm_bench.errors import RunError
from calm_bench.inside import is_inside

ELSEWHERE = "elsewhere.json"
FORMAT = 2
ANEW = "remove its folder, which is a copy, and the same command fetches it anew"


class NotThere(RunError, ValueError):
    """A file that is kept elsewhere and cannot be brought; the message says what to do."""


class KeptFile(NamedTuple):
    """Where a file is, and what it is."""

    url: str
    sha256: str | None = None
    """None where whoever reads it knows its hash."""


def keep_elsewhere(folder: Path, files: Mapping[str, KeptFile]) -> None:
    """Say where files that ``folder`` lacks are, by their names in it."""
    described = {name: {"url": kept.url, "sha256": kept.sha256} for name, kept in files.items()}
    write_json(folder / ELSEWHERE, {"format": FORMAT, "files": described})


def kept_elsewhere(folder: Path) -> dict[str, KeptFile]:
    """The files that ``folder`` lacks, or lacked until they were brought; none where it has all.

    Raises:
        NotThere: what it says cannot be read, or names a file outside the folder, which bringing it would write.
    """
    path = folder / ELSEWHERE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise NotThere(f"{path} has format {found['format']}, this version reads {FORMAT}: {ANEW}")
        files = {str(name): KeptFile(kept["url"], kept["sha256"]) for name, kept in found["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, NotThere):
            raise
        raise NotThere(f"{path} does not say where files are ({error}): {ANEW}") from error
    if outside := [name for name in files if not is_inside(folder, name)]:
        raise NotThere(f"{path} names {outside[0]}, which is outside its folder: {ANEW}")
    return files
