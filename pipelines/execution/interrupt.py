"""Ctrl-C and SIGTERM: the first asks politely, the second ends at once; and how to go on."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pipelines.common.redact import masked

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody asked this process to stop, and how."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is not None


@contextmanager
def polite_stop(announce: Callable[[str], None] | None = None) -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM inside the block into a true :class:`StopRequest`.

    The next one raises KeyboardInterrupt in the main thread. Outside the main thread, where Python allows no handlers,
    the request never turns true.

    Args:
        announce: told the reason at once, in a thread of its own: the main thread may be amid anything.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if announce is not None:
            threading.Thread(target=announce, args=(request.reason,), name="announce", daemon=True).start()

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def this_command() -> str:
    """The command of this process as one would type it, passwords in addresses masked."""
    program = Path(sys.argv[0]).name
    arguments = [masked(argument) for argument in sys.argv[1:]]
    # Started by python -c or python -m, it has no name of its own.
    return shlex.join(["calm-bench" if program in ("-c", "cli.py", "__main__.py") else program, *arguments])
