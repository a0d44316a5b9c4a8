"""Ctrl-C and SIGTERM: the first asks politely, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody asked this process to stop, and how."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is not None


@contextmanager
def polite_stop() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM inside the block into a true :class:`StopRequest`.

    The next one raises KeyboardInterrupt in the main thread. Outside the main thread, where Python allows no handlers,
    the request never turns true.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
