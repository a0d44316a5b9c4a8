"""Ctrl-C, SIGTERM and SIGHUP: while a study runs the first asks politely, the second ends at once; and how to go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipelines.common.shell_commands import shell_command

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LAST_S = 15.0
"""So long after a signal this process ends in any case: a KeyboardInterrupt that is raised in a finalizer is lost."""

ECHO_S = 1.0
"""A second SIGTERM within so long is the first one again: a scheduler sends it to every process of a job, and its
script hands it on to those that it has started."""

_heard: list[signal.Signals] = []
"""What this process was asked to end by, first to last."""


def exit_code() -> int | None:
    """The exit code by which shells know the first signal that was heard; None where none was."""
    return 128 + _heard[0] if _heard else None


def forget_signals() -> None:
    """Begin anew: a process that runs several commands, one after the other, ends by signals of the last one only."""
    _heard.clear()


def interrupt_on_signals() -> None:
    """Let the signals that were not ignored when this process began raise KeyboardInterrupt in its main thread."""

    def handle(number: int, frame: FrameType | None) -> None:
        if not _heard:
            last = threading.Timer(LAST_S, leave_at_once)
            last.daemon = True
            last.start()
        _heard.append(signal.Signals(number))
        raise KeyboardInterrupt

    for number in _not_ignored():
        signal.signal(number, handle)


def leave_at_once() -> NoReturn:
    """End this process and all that it has started, with the exit code of the signal that asked for it.

    Python's own exit would wait for threads; one in the middle of a matrix product or a start of Ray would abort it.
    """
    from pipelines.execution.descendants import end_descendants

    if threading.current_thread() is threading.main_thread():
        for number in _not_ignored():
            signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        # The terminal may be what has gone.
        with suppress(OSError, ValueError):
            stream.flush()
    end_descendants()
    os._exit(exit_code() or 128 + signal.SIGINT)


def end_on_signals() -> None:
    """Let those signals end this process at once, as they do before it has said otherwise."""
    for number in _not_ignored():
        signal.signal(number, signal.SIG_DFL)


def _not_ignored() -> list[signal.Signals]:
    """Under nohup, for one, a process is to outlive its terminal."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


class StopRequest:
    """Whether somebody asked this process to stop, and how."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is not None


@contextmanager
def polite_stop(announce: Callable[[str], None] | None = None) -> Iterator[StopRequest]:
    """Turn the first of :data:`SIGNALS` inside the block into a true :class:`StopRequest`.

    Those that were ignored stay so. The next one raises KeyboardInterrupt in the main thread, but for a SIGTERM that
    comes twice at once (:data:`ECHO_S`). Outside the main thread, where Python allows no handlers, the request never
    turns true.

    Args:
        announce: told the reason at once, in a thread of its own: the main thread may be in the middle of anything.
    """
    request, heard_at = StopRequest(), 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal heard_at
        _heard.append(signal.Signals(number))
        now, before = time.monotonic(), heard_at
        heard_at = now
        if request:
            if request.reason == signal.Signals(number).name == "SIGTERM" and now - before < ECHO_S:
                return
            raise KeyboardInterrupt
        request.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if announce is not None:
            threading.Thread(target=announce, args=(request.reason,), name="announce", daemon=True).start()

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, handle) for number in _not_ignored()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def this_command() -> str:
    """The command of this process as one would type it, without the passwords in addresses."""
    program = Path(sys.argv[0]).name
    # Started by python -c or python -m, it has no name of its own.
    return shell_command(["calm-bench" if program in ("-c", "cli.py", "__main__.py") else program, *sys.argv[1:]])
