"""A folder some of whose files are kept elsewhere: ``elsewhere.json`` in it says where, by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from calm_bench.atomic import write_json
from calm_bench.errors import RunError
from calm_bench.inside import is_inside

ELSEWHERE = "elsewhere.json"
FORMAT = 1


class NotThere(RunError, ValueError):
    """A file that is kept elsewhere and cannot be brought; the message says what to do."""


def keep_elsewhere(folder: Path, urls: Mapping[str, str]) -> None:
    """Say where files that ``folder`` lacks are, by their names in it."""
    write_json(folder / ELSEWHERE, {"format": FORMAT, "files": dict(urls)})


def kept_elsewhere(folder: Path) -> dict[str, str]:
    """The addresses of the files that ``folder`` lacks; none where it has all.

    Raises:
        NotThere: what it says cannot be read, or names a file outside the folder, which bringing it would write.
    """
    path = folder / ELSEWHERE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise NotThere(f"{path} has format {found['format']}, this version reads {FORMAT}: remove its folder")
        files: dict[str, str] = dict(found["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, NotThere):
            raise
        raise NotThere(f"{path} does not say where files are ({error}): remove its folder") from error
    if outside := [name for name in files if not is_inside(folder, name)]:
        raise NotThere(f"{path} names {outside[0]}, which is outside its folder: remove that folder")
    return files
