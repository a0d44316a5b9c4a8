"""Places where nothing can be made, such as ``/proc/x`` and ``FILE/x``: what the system says of them is told in words.

It says of the first that there is no such file, of the second that there is one, and means something else elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOTHING_THERE = "nothing can be made there"
DEVICES = (Path("/dev"), Path("/proc"))
"""Folders of the system's own, whose entries are no files of users."""
SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Inside the block something is made at ``path``; errors of the system name what could not be made, and why.

    Raises:
        OSError: as the block does, or :class:`PermissionError` where nobody may make a file,
            :class:`NotADirectoryError` where a file stands in the way of a folder.
    """
    try:
        yield
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename or str(path)) from error
    except FileNotFoundError as error:
        # Where the folder is gone meanwhile it is as the system says.
        if not Path(error.filename or path).parent.is_dir():
            raise
        raise PermissionError(errno.EACCES, NOTHING_THERE, error.filename or str(path)) from error


def refuse_device(path: Path) -> None:
    """
    Raises:
        OSError: a device or a pipe is at ``path``, such as ``/dev/null``, which a file would take the place of.
    """
    above = path.absolute().parent
    among = any(above.is_relative_to(folder) for folder in DEVICES) and not above.is_relative_to(SHARED_MEMORY)
    if path.exists() and (among or not (path.is_file() or path.is_dir())):
        raise PermissionError(errno.EACCES, "it is a device or a pipe, which no file may replace", str(path))
