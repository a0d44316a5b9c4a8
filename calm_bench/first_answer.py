"""Whether a server answers at all: implementations ask a silent one again and again, for minutes or half an hour."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from calm_bench.errors import RunError

T = TypeVar("T")

FIRST_ANSWER_S = 30.0
"""How long a server may be silent when a process first asks it."""


class NoAnswer(RunError):
    """A server was silent; who asked says which."""


def first_answer(request: Callable[[], T], patience_s: float | None = None) -> T:
    """What ``request`` returns.

    Args:
        patience_s: how long it may take; unset, ``FIRST_ANSWER_S``. The request itself is left to end when it will.

    Raises:
        NoAnswer: it takes longer. What ``request`` raises comes out as it is.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            found.append(request())
        except BaseException as error:  # handed on below
            failed.append(error)

    asking = threading.Thread(target=ask, name="first answer", daemon=True)
    asking.start()
    asking.join(FIRST_ANSWER_S if patience_s is None else patience_s)
    if failed:
        raise failed[0]
    if not found:
        raise NoAnswer
    return found[0]
