"""A few shards at hand, the next ones brought by a thread before they are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

Shard = npt.NDArray[Any]


class ShardCache:
    """Holds the shards that are wanted and no others.

    Args:
        bring: the ids of a shard; may take long. Called by the thread, for one after the other.
        forget: lets go of what ``bring`` did for a shard.
    """

    def __init__(self, bring: Callable[[int], Shard], forget: Callable[[int], None]) -> None:
        self._bring, self._forget = bring, forget
        self._wanted: Sequence[int] = ()
        self._held: dict[int, Shard] = {}
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.waited_s = 0.0
        """Seconds for which :meth:`get` had to wait."""
        self.most_held = 0
        """The largest number of shards that were at hand at once."""

    def want(self, shards: Sequence[int]) -> None:
        """Bring these, the first ones first; forget the others."""
        with self._changed:
            self._wanted = list(shards)
            for shard in [shard for shard in self._held if shard not in self._wanted]:
                del self._held[shard]
                self._forget(shard)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="shards", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def get(self, shard: int) -> Shard:
        """The ids of a shard that is wanted, as soon as they are here.

        Raises:
            KeyError: it is not wanted.
            Exception: what ``bring`` raised.
        """
        with self._changed:
            if shard not in self._held and shard not in self._wanted:
                raise KeyError(shard)
            asked = time.perf_counter()
            while shard not in self._held:
                if self._error is not None:
                    raise self._error
                self._changed.wait()
            self.waited_s += time.perf_counter() - asked
            return self._held[shard]

    def close(self) -> None:
        """End the thread and forget all shards."""
        with self._changed:
            self._closed = True
            self._wanted = ()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        for shard in self._held:
            self._forget(shard)
        self._held = {}

    def _work(self) -> None:
        while (shard := self._next()) is not None:
            try:
                found = self._bring(shard)
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                if shard in self._wanted:
                    self._held[shard] = found
                    self.most_held = max(self.most_held, len(self._held))
                else:
                    self._forget(shard)
                self._changed.notify_all()

    def _next(self) -> int | None:
        """The first shard that is wanted and not here; None when it is all over."""
        with self._changed:
            while not self._closed:
                for shard in self._wanted:
                    if shard not in self._held:
                        return shard
                self._changed.wait()
            return None
