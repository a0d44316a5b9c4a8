"""What a process does last, however politely it ends.

Python's own exit handlers are not run where a process ends at once because a signal asked it to; these are.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable

_actions: list[Callable[[], object]] = []


def at_end(action: Callable[[], object]) -> None:
    """Let ``action``, which must end by itself within seconds, be done before this process ends."""
    _actions.append(action)


def run_at_end() -> None:
    """Do all that :func:`at_end` was given and that is not done yet."""
    while _actions:
        _actions.pop()()


atexit.register(run_at_end)
