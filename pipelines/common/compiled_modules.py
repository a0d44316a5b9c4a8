"""What to do about a module that Python compiled and could not write whole, as a full disk leaves it."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from pipelines.common.shell_commands import shell_command

_TEXT = "marshal data"
"""What Python says of one begins so; it is an EOFError, and names no file."""


def way_out(error_name: str, text: str) -> str | None:
    """What to do about an error of the class ``error_name``; None where it tells of no compiled module."""
    if error_name != EOFError.__name__ or not text.startswith(_TEXT):
        return None
    remove = shell_command(["find", *_folders(), "-name", "*.pyc", "-delete"])
    return f"a compiled module is cut off, as a full disk leaves it: {remove}; Python compiles it again"


def _folders() -> list[str]:
    """Folders below which Python keeps the compiled modules of this project and of what it imports."""
    if sys.pycache_prefix is not None:
        return [sys.pycache_prefix]
    return sorted({str(Path(__file__).resolve().parents[2]), sysconfig.get_path("purelib")})
