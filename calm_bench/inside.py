"""Names of files that a file names: whoever wrote it must not choose what else is read or written."""

from __future__ import annotations

from pathlib import Path


def is_inside(folder: Path, name: str | Path) -> bool:
    """Whether ``name``, relative to ``folder``, leads to a place in it, through whatever links there are."""
    return (folder / name).resolve().is_relative_to(folder.resolve())
