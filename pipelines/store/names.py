"""Names that come from outside: what a foreign store lists must not lead out of the folder it is read into."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@=+-]*")


def is_plain(name: str) -> bool:
    """Whether ``name`` is one ordinary part of a path, as kinds, identities and folders of studies are."""
    return _PLAIN.fullmatch(name) is not None


def stays_inside(name: str) -> bool:
    """Whether the relative path ``name`` leads to a place below the folder that it is joined to, on any system."""
    paths = PurePosixPath(name), PureWindowsPath(name)
    if not name or "\0" in name or any(path.anchor or ".." in path.parts for path in paths):
        return False
    # "." and "a/." are folders, and "a//b" is another name of "a/b".
    return str(paths[0]) == name and name != "."
