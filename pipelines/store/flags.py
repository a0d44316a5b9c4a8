"""Flags that one process raises for another through the store: a driver's wish that a stage should end."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from pipelines.store.object_store import ObjectStore

FOLDER = "stop"


class Flag(Protocol):
    """Raised while something of its name is there. A :class:`pathlib.Path` is one."""

    def exists(self) -> bool: ...

    def touch(self) -> None: ...

    def unlink(self, missing_ok: bool = False) -> None: ...


class RemoteFlag:
    """A flag as an object of a remote home."""

    def __init__(self, home: ObjectStore, name: str) -> None:
        self._home = home
        self._key = f"{FOLDER}/{name}"

    def exists(self) -> bool:
        """Whether it is raised; not, as far as is known, while the store is away."""
        with suppress(OSError):
            return self._home.exists(self._key)
        return False

    def touch(self) -> None:
        self._home.write(self._key, b"")

    def unlink(self, missing_ok: bool = False) -> None:
        self._home.delete([self._key])
