"""Which stages are finished in an object store, known from one listing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from pydantic import ValidationError

from pipelines.store.manifest import Manifest
from pipelines.store.names import is_plain
from pipelines.store.object_store import Found, ObjectStore
from pipelines.store.refs import StageRef
from pipelines.study.stage_folder import StageRecord

FOLDER = "published"
"""One record a stage, ``kind-identity.json``: a listing of this folder tells what is finished."""
FRESH_S = 2.0
"""For how long a listing answers for what other hosts publish meanwhile."""


class PublishedIndex:
    """The records in :data:`FOLDER`, read once each. Safe to use from several threads."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._listed: dict[str, Found] = {}
        self._when: float | None = None
        self._records: dict[str, Manifest] = {}
        self._lock = threading.RLock()

    @staticmethod
    def key(name: str) -> str:
        return f"{FOLDER}/{name}.json"

    def uri(self, name: str) -> str:
        """The address of the record of ``name``, for people: who removes it removes the stage."""
        return self._objects.uri(self.key(name))

    def has(self, name: str) -> bool:
        """Whether a record of ``name`` is there that can be read; what was there a moment ago counts."""
        with self._lock:
            if name not in self._listed and (self._when is None or time.monotonic() - self._when > FRESH_S):
                self.refresh()
            if name in self._listed and name not in self._records:
                # Records are mostly asked for in numbers: they come together, not one by one.
                self._read([other for other in self._listed if other not in self._records])
            return name in self._records

    def has_now(self, name: str) -> bool:
        """Whether it is there, and can be read, at this moment."""
        with self._lock:
            self.forget(name)
            self._read([name])
            return name in self._records

    def refresh(self) -> dict[str, Found]:
        """All names, as they are at this moment."""
        with self._lock:
            found = {_name(key): info for key, info in self._objects.list(FOLDER).items() if is_plain(_name(key))}
            for name in [name for name in self._records if found.get(name) != self._listed.get(name)]:
                # Quarantined and made anew, perhaps.
                del self._records[name]
            self._listed, self._when = found, time.monotonic()
            return dict(found)

    def record(self, name: str) -> Manifest:
        """What the record of ``name`` says.

        Raises:
            FileNotFoundError: there is none that can be read.
        """
        with self._lock:
            if not self.has(name) and not self.has_now(name):
                raise FileNotFoundError(f"{self.uri(name)} is not there, or is no record")
            return self._records[name]

    def descriptions(self, kind: str) -> Iterator[StageRecord]:
        """The descriptions of the finished stages of ``kind``, by identity."""
        for name in sorted(self.refresh()):
            if StageRef.parse(name).kind == kind and (description := self.description(name)):
                yield description

    def description(self, name: str) -> StageRecord | None:
        """What a finished stage says of itself; None where the record cannot be read."""
        try:
            return StageRecord.model_validate(self.record(name).about.get("description"))
        except (FileNotFoundError, ValidationError):
            return None

    def add(self, name: str, bundle: Manifest) -> None:
        """Take note of what this process has published."""
        with self._lock:
            self._records[name] = bundle

    def forget(self, name: str) -> None:
        """Take note that a record is gone."""
        with self._lock:
            self._records.pop(name, None)
            self._listed.pop(name, None)

    def _read(self, names: list[str]) -> None:
        for key, content in self._objects.read_many([self.key(name) for name in names]).items():
            try:
                self._records[_name(key)] = Manifest.from_json(content)
            except ValueError:
                continue


def _name(key: str) -> str:
    return key.removeprefix(f"{FOLDER}/").removesuffix(".json")
