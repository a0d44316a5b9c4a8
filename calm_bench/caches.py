"""The user's folder for caches, also where the user has no home: a container's user may be a mere number.

Linux: ``XDG_CACHE_HOME``, else ``~/.cache``. Where that cannot be written, a folder for this user among the temporary
ones.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from calm_bench.errors import UsageError

VARIABLE = "XDG_CACHE_HOME"


class CacheError(UsageError):
    """There is no place for caches."""


def user_caches() -> Path:
    """The folder in which each program has one of its own.

    Raises:
        CacheError: none can be written.
    """
    given = os.environ.get(VARIABLE, "")
    # The specification of these folders says that a relative path is to be ignored.
    if os.path.isabs(given):
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:
        # Neither HOME nor an entry in the list of users.
        return own_temporary_folder()
    usual = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    return usual if _can_be_written(usual) else own_temporary_folder()


def settle_caches() -> None:
    """Let libraries that would cache in a home find one: ``XDG_CACHE_HOME`` is set where that is not writable.

    To be called before they are imported; the processes that this one starts inherit it.
    """
    if sys.platform == "darwin" or os.path.isabs(os.environ.get(VARIABLE, "")):
        return
    found = user_caches()
    if found != Path(os.path.expanduser("~/.cache")):
        os.environ[VARIABLE] = str(found)


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def own_temporary_folder() -> Path:
    """A folder of this user's among the temporary ones, which are a node's own.

    Raises:
        CacheError: it cannot be made, or somebody else has: among the temporary folders everybody may make one.
    """
    folder = Path(tempfile.gettempdir()) / f"calm-bench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise CacheError(
            f"{folder} cannot be made ({error}): set {VARIABLE} to a folder of yours for caches"
        ) from error
    if found.st_uid != os.getuid() or folder.is_symlink() or found.st_mode & 0o022:
        raise CacheError(f"{folder} is not this user's alone: set {VARIABLE} to a folder of yours for caches")
    return folder
