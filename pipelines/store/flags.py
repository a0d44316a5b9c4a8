"""Flags that one process raises for another through the store: a driver's wish that a stage should end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Protocol

from calm_bench.kept_folders import make_folder
from pipelines.store.object_store import ObjectStore

FOLDER = "stop"


class Flag(Protocol):
    """Raised while something of its name is there. A :class:`pathlib.Path` is one."""

    def exists(self) -> bool: ...

    def touch(self) -> None: ...

    def unlink(self, missing_ok: bool = False) -> None: ...


class Flags(Protocol):
    """The flags of a store."""

    def get(self, name: str) -> Flag:
        """The flag ``name``, raised or not."""

    def raise_flag(self, name: str) -> None:
        """Raise the flag ``name``."""

    def lower(self, beginning: str) -> None:
        """Lower all flags whose names begin so."""


class FolderFlags:
    """Flags as files in a folder."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER

    def get(self, name: str) -> Path:
        return self._folder / name

    def raise_flag(self, name: str) -> None:
        make_folder(self._folder)
        self.get(name).touch()

    def lower(self, beginning: str) -> None:
        for path in self._folder.glob(f"{beginning}*"):
            path.unlink(missing_ok=True)


class ObjectFlag:
    """A flag as an object of an object store."""

    def __init__(self, objects: ObjectStore, name: str) -> None:
        self._objects = objects
        self._key = f"{FOLDER}/{name}"

    def exists(self) -> bool:
        """Whether it is raised; not, as far as is known, while the store is away."""
        with suppress(OSError):
            return self._objects.exists(self._key)
        return False

    def touch(self) -> None:
        self._objects.write(self._key, b"")

    def unlink(self, missing_ok: bool = False) -> None:
        self._objects.delete([self._key])


class ObjectFlags:
    """Flags as objects of an object store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def get(self, name: str) -> ObjectFlag:
        return ObjectFlag(self._objects, name)

    def raise_flag(self, name: str) -> None:
        self.get(name).touch()

    def lower(self, beginning: str) -> None:
        self._objects.delete(key for key in self._objects.list(FOLDER) if key.startswith(f"{FOLDER}/{beginning}"))
