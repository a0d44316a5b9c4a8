"""Studies in an object store: fetched before a driver goes on with one, uploaded after each change.

Optuna's journal is one file that only grows, so at any time one driver writes it: it holds the lease of the study.
Drivers that are to share a study keep it in a database (``execution.optuna_storage``) or use a shared folder as store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.store.errors import StudyBusy
from pipelines.store.lease import Lease, LeaseManager
from pipelines.store.local_cache import LocalCache
from pipelines.store.object_store import ObjectStore
from pipelines.store.progress_sender import SEND_S, ProgressSender
from pipelines.store.published_index import PublishedIndex
from pipelines.store.study_copies import StudyCopies, stages_of
from pipelines.store.study_drivers import StudyDrivers


class ObjectStudies:
    """The studies at ``objects``, each run by one driver at a time.

    Args:
        progress_every_s: how often a driver lets others see how its study gets on.
    """

    def __init__(
        self,
        objects: ObjectStore,
        copies: StudyCopies,
        leases: LeaseManager,
        published: PublishedIndex,
        cache: LocalCache,
        progress_every_s: float = SEND_S,
    ) -> None:
        self._objects = objects
        self._copies = copies
        self._drivers = StudyDrivers(leases, objects.uri(), share_journals=False)
        self._published = published
        self._cache = cache
        self._progress_every_s = progress_every_s
        self._held: dict[str, Lease] = {}

    @contextmanager
    def open(self, name: str, database: str | None = None) -> Iterator[Path]:
        folder = self._copies.folder(name)
        with self._drivers.running(name, database) as lease:
            try:
                if database is None:
                    self._held[name] = lease
                self._copies.fetch(name)
                with self._copies.driving(name):
                    sender = ProgressSender(self._objects, folder, self._progress_every_s)
                    try:
                        yield folder
                    finally:
                        sender.leave()
                        self.save(name)
            finally:
                self._held.pop(name, None)

    def save(self, name: str) -> None:
        if name in self._held and self._held[name].lost:
            raise StudyBusy(
                f"this driver was cut off from {self._objects.uri()} for so long that another one took the study over: "
                "nothing is lost, the other goes on"
            )
        self._copies.save(name)

    def folders(self, complete: bool = False) -> list[Path]:
        found = self._copies.folders(complete)
        if complete:
            for folder in found:
                self._cache.prefetch({name for name in stages_of(folder) if self._published.has(name)})
        return found
