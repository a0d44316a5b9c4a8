"""Arrays in plain files, as they lie in memory."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
import numpy.typing as npt


def append_array(file: IO[bytes], values: npt.NDArray[Any]) -> None:
    """Write ``values`` behind what ``file`` holds; ``numpy.fromfile`` reads them.

    ``ndarray.tofile`` does the same, but of a full disk it tells how many values were written, and not why.

    Raises:
        OSError: the disk is full, or the file cannot be written; its ``errno`` says which.
    """
    file.write(np.ascontiguousarray(values).data)
