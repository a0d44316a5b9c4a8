"""Leases in an object store: at most one process works on a thing, and a dead one does not keep it.

Few stores other than S3 itself refuse to overwrite an object, so nothing here depends on it. Who wants a lease writes
a claim of its own and then lists the claims: it has the lease if no other live claim is there, and withdraws where an
older one is. Of two that write at the same time, whoever writes last sees the other, so never do both have it; all that
is needed is a store whose listings show what was written before (S3, Google, Azure, a local disk; not a shared folder
whose clients cache listings: that is a store by its path, with locks of the file system).

The holder writes its claim anew every few seconds. A claim is dead when its process is known to be gone (same host) or
when it has not been written for ``expiry_s``, by the clock of the object store, to which hosts compare theirs. A holder
that was cut off for longer may go on until it hears of its loss; the same stage is then made twice, with the same
bits, and one of the two is published.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial

from pipelines.store import flags
from pipelines.store.holder import Holder, this_process
from pipelines.store.lease import DeadLease, HeldLease, LeaseManager
from pipelines.store.names import is_plain
from pipelines.store.object_store import Found, ObjectStore

EXPIRY_S = 90.0
HEARTBEAT_S = 10.0
CONTEST_S = 3.0
"""How long the oldest of several that claim at once waits for the others to withdraw."""

FOLDER = "leases"


class ObjectGrant:
    """A claim of this process that no other live claim stands beside."""

    def __init__(
        self,
        objects: ObjectStore,
        key: str,
        content: bytes,
        heartbeat_s: float,
        has_rivals: Callable[[], bool],
        written: float,
    ) -> None:
        self._objects = objects
        self._key = key
        self._content = content
        self._overdue_s = 2 * heartbeat_s
        self._has_rivals = has_rivals
        # Not when this is known to have been written, which may be long after.
        self._renewed = written

    def renew(self) -> bool:
        """Write the claim anew; False where it is gone, or where it was overdue and another one is there."""
        if not self._objects.exists(self._key):
            return False
        now = uptime_s()
        self._objects.write(self._key, self._content)
        if now - self._renewed > self._overdue_s and self._has_rivals():
            return False
        self._renewed = now
        return True

    def withdraw(self) -> None:
        """Remove the claim."""
        # It expires by itself where the store is away.
        with suppress(OSError):
            self._objects.delete([self._key])


class ObjectLeases:
    """The leases of one object store."""

    def __init__(self, objects: ObjectStore, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.expiry_s = expiry_s
        self.heartbeat_s = heartbeat_s
        self._objects = objects
        self._ahead: float | None = None
        """By how many seconds, at least, the store's clock is ahead of :func:`uptime_s`; None while it is not known."""
        self._has_asked = False
        self._holders: dict[str, Holder | None] = {}

    def grant(self, name: str) -> ObjectGrant | None:
        """The lease ``name``, or None while another live process holds it; waits for rivals of the same moment only."""
        if self._ahead is not None and self._live(self._list(name)):
            # So that whoever waits for a busy lease does not write all the time.
            return None
        holder = this_process()
        key = f"{FOLDER}/{name}/{time.time_ns():020d}-{holder.token}.json"
        content = json.dumps(asdict(holder)).encode()
        written = uptime_s()
        self._objects.write(key, content)
        # A write may take minutes, by a network or a machine that sleeps: by the time before it, claims of others would
        # be as much older as they are, and dead.
        answered = uptime_s()
        deadline = time.monotonic() + CONTEST_S
        while key in (found := self._list(name)):
            self._ahead = found[key].modified - answered
            others = self._live({other: info for other, info in found.items() if other != key}, found[key].modified)
            if not others:
                self._objects.delete(other for other in found if other != key)
                rivals = partial(self._has_rivals, name, key)
                return ObjectGrant(self._objects, key, content, self.heartbeat_s, rivals, written)
            if min(others) < key or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        self._objects.delete([key])
        return None

    def holder(self, name: str) -> Holder | None:
        """The live process that holds the lease ``name``, if any."""
        live = self._live(self._list(name))
        return self._holder(min(live)) if live else None

    def held(self) -> dict[str, HeldLease]:
        """All leases that live processes hold, by name, with when they were taken; one listing."""
        found = {}
        for key in sorted(self._live(self._objects.list(FOLDER)), reverse=True):
            holder = self._holder(key)
            if holder is not None:
                _, name, own = key.split("/")
                since = own.partition("-")[0]
                found[name] = HeldLease(holder, int(since) / 1e9 if since.isdecimal() else 0.0)
        return found

    def sweep(self, delete: bool, prefix: str = "") -> list[DeadLease]:
        """Claims that dead processes left."""
        listed = self._objects.list(FOLDER)
        found = {key: info for key, info in listed.items() if key.partition("/")[2].startswith(prefix)}
        live = self._live(found)
        dead = {key: info for key, info in found.items() if key not in live}
        if delete:
            self._objects.delete(dead)
        return [DeadLease(key, self._objects.uri(key), info.size) for key, info in dead.items()]

    def _list(self, name: str) -> dict[str, Found]:
        return self._objects.list(f"{FOLDER}/{name}")

    def _has_rivals(self, name: str, key: str) -> bool:
        return bool(self._live({other: info for other, info in self._list(name).items() if other != key}))

    def _live(self, found: Mapping[str, Found], now: float | None = None) -> set[str]:
        """Those of the claims ``found`` whose holders live; ``now`` by the clock of the store."""
        live = set[str]()
        if not found:
            return live
        now = self._now() if now is None else now
        for key, info in found.items():
            if now - info.modified < self.expiry_s:
                holder = self._holder(key)
                if holder is not None and not holder.is_gone():
                    live.add(key)
        return live

    def _now(self) -> float:
        """The time of the store; of one that may only be read, this host's."""
        if self._ahead is None and not self._has_asked:
            self._has_asked = True
            with suppress(OSError):
                self._compare_clocks()
        return time.time() if self._ahead is None else uptime_s() + self._ahead

    def _compare_clocks(self) -> None:
        """By an object that is there for a moment, once: who only looks has written nothing of which to see the time.

        Raises:
            OSError: the store is away, or may only be read.
        """
        key = f"{flags.FOLDER}/asked-{uuid.uuid4().hex}"
        self._objects.write(key, b"")
        # As in :meth:`grant`: a claim must not look older than it is.
        answered = uptime_s()
        try:
            for info in self._objects.list_one(key).values():
                self._ahead = info.modified - answered
        finally:
            self._objects.delete([key])

    def _holder(self, key: str) -> Holder | None:
        """Whose claim it is. A claim never changes hands, so it is read once."""
        if key not in self._holders:
            if len(parts := key.split("/")) != 3 or not is_plain(parts[1]):
                return None
            try:
                self._holders[key] = Holder(**json.loads(self._objects.read(key)))
            except FileNotFoundError:
                return None
            except (ValueError, TypeError):
                self._holders[key] = None
        return self._holders[key]


def uptime_s() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def leases_at(objects: ObjectStore, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> LeaseManager:
    """The leases that are kept at ``objects``."""
    return LeaseManager(ObjectLeases(objects, expiry_s, heartbeat_s))
