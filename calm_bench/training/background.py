"""One piece of work at a time beside the training: checkpoints are written while the next steps are taken."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundWork:
    """Runs one function after the other in a thread of its own.

    A daemon thread: a process that is told to end at once does not wait for it. What it was writing then has no digest
    and is passed over.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work`` once what was begun before has ended.

        Raises:
            Exception: what the work before raised.
        """
        self.join()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the work that was begun last.

        Raises:
            Exception: what it raised.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
