"""Leases: at most one process works on a thing, and a dead one does not keep it.

The heartbeat is the same wherever leases are kept; where that is, a backend decides: a folder
(:mod:`pipelines.store.folder_leases`) or an object store (:mod:`pipelines.store.object_leases`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pipelines.store.holder import Holder


class Grant(Protocol):
    """What a backend keeps of a lease that is held."""

    def renew(self) -> bool:
        """Show that the holder lives; False once somebody else has the lease, or may have.

        Raises:
            OSError: the backend is away, which is no loss of the lease.
        """

    def withdraw(self) -> None:
        """Give the lease back, unless somebody else has it by now."""


@dataclass(frozen=True)
class HeldLease:
    """A lease of a live process."""

    holder: Holder
    since: float
    """Seconds since the epoch, by the holder's clock."""


@dataclass(frozen=True)
class DeadLease:
    """What a dead process left of a lease."""

    name: str
    """Name of the file or object, below the store."""
    uri: Path | str
    size: int
    """Bytes."""


class LeaseBackend(Protocol):
    """Where leases are kept."""

    @property
    def heartbeat_s(self) -> float:
        """Seconds between two signs of life."""

    @property
    def expiry_s(self) -> float:
        """Seconds without a sign of life after which a holder is taken for dead."""

    def grant(self, name: str) -> Grant | None:
        """The lease ``name`` for this process, or None while another live process holds it."""

    def holder(self, name: str) -> Holder | None:
        """The live process that holds the lease ``name``, if any."""

    def held(self) -> dict[str, HeldLease]:
        """All leases that live processes hold, by name."""

    def sweep(self, delete: bool, prefix: str) -> list[DeadLease]:
        """What dead processes left of leases whose names begin with ``prefix``; deletes it if ``delete``."""


class Lease:
    """A lease that is held until :meth:`release`; a context manager that releases."""

    def __init__(self, name: str, grant: Grant, heartbeat_s: float) -> None:
        self._grant = grant
        self._heartbeat_s = heartbeat_s
        self._ended = threading.Event()
        self._lost = False
        self._before_release: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._beat, name=f"lease {name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """True once somebody else has taken the lease over, or may have: this process slept past its expiry."""
        return self._lost

    def before_release(self, action: Callable[[], None]) -> None:
        """Let ``action`` be done while the lease is still held, when it is about to be released."""
        self._before_release.append(action)

    def release(self) -> None:
        """Stop the heartbeat and give the lease back, unless somebody else has it by now."""
        try:
            for action in self._before_release:
                action()
        finally:
            self._ended.set()
            self._thread.join()
            self._grant.withdraw()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat_s):
            # A server away for a moment is not a lost lease; only another holder is.
            with suppress(OSError):
                if not self._grant.renew():
                    self._lost = True
                    return


class LeaseManager:
    """The leases of one backend."""

    def __init__(self, backend: LeaseBackend) -> None:
        if backend.heartbeat_s * 2 >= backend.expiry_s:
            raise ValueError(
                f"a heartbeat every {backend.heartbeat_s} s cannot keep a lease that expires after {backend.expiry_s} s"
            )
        self._backend = backend

    def acquire(self, name: str) -> Lease | None:
        """The lease ``name``, or None while another live process holds it; never waits for it."""
        grant = self._backend.grant(name)
        return None if grant is None else Lease(name, grant, self._backend.heartbeat_s)

    def holder(self, name: str) -> Holder | None:
        """The live process that holds the lease ``name``, if any."""
        return self._backend.holder(name)

    def held(self) -> dict[str, HeldLease]:
        """All leases that live processes hold, by name."""
        return self._backend.held()

    def sweep(self, delete: bool = True, prefix: str = "") -> list[DeadLease]:
        """What dead processes left: leases that nobody holds any more, and half-written ones; deletes it.

        Args:
            delete: unset, it is only told.
            prefix: with which the names of the leases begin.
        """
        return self._backend.sweep(delete, prefix)
