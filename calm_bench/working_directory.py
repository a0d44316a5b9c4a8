"""The folder in which this process works, also after somebody has removed it.

Python's ways to ask for it raise FileNotFoundError then, and with them whatever asks while it is imported: torch's
compiler, MLflow, multiprocessing.
"""

from __future__ import annotations

import os
from pathlib import Path

from calm_bench.errors import UsageError
from calm_bench.kept_folders import DELETED

NOWHERE = os.path.abspath(os.sep)
"""Where to go from a removed folder: it is always there, and relative paths lead to nothing there either."""


class WorkingDirectoryGone(UsageError, OSError):
    """The working directory has been removed."""


def working_directory() -> Path:
    """The working directory; where it has been removed, its name from before, at which there is nothing."""
    try:
        return Path(os.getcwd())
    except FileNotFoundError:
        pass
    try:
        return Path(os.readlink("/proc/self/cwd").removesuffix(DELETED))
    except OSError:
        return Path(os.curdir)


def is_removed() -> bool:
    """Whether the working directory has been removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def leave_removed() -> bool:
    """Go elsewhere if the working directory has been removed, and say whether: who works on needs none, and libraries
    that ask for it would fail."""
    if not is_removed():
        return False
    os.chdir(NOWHERE)
    return True


def check_working_directory() -> None:
    """
    Raises:
        WorkingDirectoryGone: it has been removed; libraries end the process there in words of their own.
    """
    if is_removed():
        raise WorkingDirectoryGone(
            "the folder in which this was started has been removed: go to another (cd, in Python os.chdir)"
        )
