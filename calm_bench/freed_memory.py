"""Memory that a process has freed and will need again.

glibc gives the freed end of its heap back to the system once it is more than twice the largest piece freed so far. A
training step frees nearly all that it holds, and the next one asks for it again, page by page: up to a thirtieth of its
time. (What is freed first moves the limits, so that without a fixed one a step's time also depends on what ran before.)
"""

from __future__ import annotations

import ctypes
import os
import platform

KEPT = 256 << 20
"""Bytes of free heap that are kept."""
LARGEST = 32 << 20
"""Bytes of the largest piece that comes from the heap, the most that glibc allows; larger ones are the system's own."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3), as malloc.h has them."""
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process keep :data:`KEPT` bytes of what it frees; whether that could be set.

    What the user has set stays, and so does all where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _OF_THE_USER):
        return False
    setting = ctypes.CDLL(None).mallopt
    return bool(setting(_TRIM_THRESHOLD, KEPT)) and bool(setting(_MMAP_THRESHOLD, LARGEST))
