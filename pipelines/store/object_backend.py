"""A store in an object store, with a folder on this machine to work in. In the object store are

    published/<kind>-<identity>.json        a finished stage: its files with hashes, its description and result
    stages/<kind>/<identity>/<upload>/...   these files
    work/<kind>-<identity>.json, .../       what an interrupted stage would go on from
    leases/<name>/...                       who works on what
    studies/<name>-<identity>/              journals, leaderboards, and how far drivers have come
    damaged/                                records of stages that were found damaged and are made anew
    stop/                                   flags by which drivers stop their workers

The local folder has the layout of a local store. It is a cache: without processes that use it, it can be deleted, at
the price of fetching, and of the work since the last upload.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from calm_bench.caches import user_caches
from pipelines.store import object_contents
from pipelines.store.checkpoint_upload import SAVE_EVERY_S
from pipelines.store.contents import PartialStage, left_behind_in
from pipelines.store.errors import StoreUnreachable
from pipelines.store.flags import ObjectFlags
from pipelines.store.folder_leases import leases_in
from pipelines.store.local_cache import LocalCache
from pipelines.store.object_leases import EXPIRY_S, HEARTBEAT_S, leases_at
from pipelines.store.object_stages import ObjectStages
from pipelines.store.object_store import ObjectStore
from pipelines.store.object_studies import ObjectStudies
from pipelines.store.object_work import ObjectWork
from pipelines.store.progress_sender import SEND_S
from pipelines.store.published_index import PublishedIndex
from pipelines.store.remote_progress import RemoteProgress
from pipelines.store.study_copies import StudyCopies
from pipelines.store.workspace import Workspace

CACHE = "CALM_BENCH_CACHE"
"""Environment variable: the folder for local copies of remote stores; else the user's cache folder."""


class ObjectBackend:
    """Stages, leases, studies and flags at ``objects``, worked on below ``root``.

    Args:
        expiry_s: seconds without a sign of life after which the holder of a lease is taken for dead.
        heartbeat_s: seconds between two signs of life.
        save_every_s: least time between two uploads of a stage's checkpoints.
        progress_every_s: how often a driver lets others see how its study gets on.
    """

    wait_s = 2.0
    flags_every_s = 4.0

    def __init__(
        self,
        objects: ObjectStore,
        root: Path,
        expiry_s: float = EXPIRY_S,
        heartbeat_s: float = HEARTBEAT_S,
        save_every_s: float = SAVE_EVERY_S,
        progress_every_s: float = SEND_S,
    ) -> None:
        self._settings = (expiry_s, heartbeat_s, save_every_s, progress_every_s)
        self.objects = objects
        self.uri = objects.uri()
        self.workspace = Workspace(root)
        self.leases = leases_at(objects, expiry_s, heartbeat_s)
        self.folder_leases = leases_in(root / "leases")
        self.flags = ObjectFlags(objects)
        self.work = ObjectWork(objects, self.workspace, self.leases, save_every_s)
        self._published = PublishedIndex(objects)
        cache = LocalCache(objects, root, self._published)
        self.stages = ObjectStages(objects, self.workspace, self._published, cache, self.work)
        copies = StudyCopies(objects, root)
        self.studies = ObjectStudies(objects, copies, self.leases, self._published, cache, progress_every_s)
        self.progress = RemoteProgress(objects, root, self.leases, copies)

    def __reduce__(self) -> tuple[Any, ...]:
        # On another host the local folder is elsewhere.
        return object_backend, (self.objects.url, *self._settings)

    def exists(self) -> bool:
        return any(self.objects.list(folder) for folder in ("published", "studies", "work"))

    def try_out(self) -> None:
        self.workspace.check_writable()
        key = f"stop/tried-{uuid.uuid4().hex}"
        self.objects.write(key, b"calm-bench doctor")
        try:
            if key not in self.objects.list("stop") or self.objects.read(key) != b"calm-bench doctor":
                raise StoreUnreachable(f"{self.uri} does not show what was just written: leases need that it does")
        finally:
            self.objects.delete([key])

    def left_behind(self) -> Iterator[PartialStage]:
        yield from object_contents.left_behind(self.objects, self._published, self.leases)
        yield from object_contents.left_in_cache(self.workspace.root, self._published)
        yield from left_behind_in(self.workspace.root)

    def discard(self, uri: Path | str) -> None:
        if isinstance(uri, Path):
            self.workspace.discard(uri)
            return
        key = self.objects.key_of(uri)
        for record in object_contents.records_of(key):
            # First, so that nobody sees a stage of which half is gone.
            self.objects.delete([record])
            self._published.forget(PurePosixPath(record).stem)
        self.objects.delete(list(self.objects.list(key)) or [key])
        if (copy := self.workspace.root / key).is_dir():
            shutil.rmtree(copy)


def object_backend(url: str, *settings: float) -> ObjectBackend:
    """What is at the address ``url``, worked on in this machine's cache; ``settings`` of :class:`ObjectBackend`."""
    return ObjectBackend(ObjectStore(url), cache_folder(url), *settings)


def cache_folder(url: str) -> Path:
    """Where this machine works on the store at ``url``."""
    own = os.environ.get(CACHE) or user_caches() / "calm-bench"
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return Path(own).expanduser().absolute() / f"store-{digest}"
