"""A module of Python's as the program of a process that ends with the one that started it, even by SIGKILL.

    python tied.py MODULE ARGUMENTS...

Run by its path and with the standard library alone: the process need not find this project. Its standard input is the
read end of a pipe to which nobody writes, and whose other end only the starter has: when the system closes that, this
process ends its whole group, which it must lead.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

PATIENCE_S = 5.0


def tie() -> None:
    """Watch the pipe from now on; who reads standard input finds nothing."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_end_with, args=(pipe,), name="tied", daemon=True).start()


def _end_with(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    tie()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
