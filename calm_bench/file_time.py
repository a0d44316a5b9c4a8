"""What time it is to a file system, which may be another host's: ages of files are told by its clock, not by ours."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path


def file_time(folder: Path) -> float:
    """Seconds since the epoch by the clock that dates files in ``folder``; by ours where nothing can be written there.

    Asked by a file without a name, or with one for a moment where the system has no such files.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
