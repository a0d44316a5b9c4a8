"""Stores in object stores, for tests that look into them."""

from __future__ import annotations

from pathlib import Path

from pipelines.store.object_backend import ObjectBackend
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store


def remote_store(objects: ObjectStore, root: Path, **settings: float) -> Store:
    """The store at ``objects`` as a host has it that works below ``root``."""
    return Store(ObjectBackend(objects, root, **settings))


def objects_of(store: Store) -> ObjectStore:
    """All that hosts share of ``store``."""
    assert isinstance(store.backend, ObjectBackend)
    return store.backend.objects
