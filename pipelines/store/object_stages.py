"""Finished stages in an object store: published by a record, and read through copies on this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.store import manifest, object_contents
from pipelines.store.contents import StageFiles
from pipelines.store.errors import CorruptedStage
from pipelines.store.folder_stages import NOT_THERE
from pipelines.store.integrity import RECORD, recorded_names, verify_folder
from pipelines.store.local_cache import LocalCache, prefix_of
from pipelines.store.object_store import ObjectStore
from pipelines.store.object_work import ObjectWork
from pipelines.store.published_index import PublishedIndex
from pipelines.store.refs import StageRef
from pipelines.store.workspace import Workspace
from pipelines.study.stage import Stage
from pipelines.study.stage_folder import StageRecord, read_result


class ObjectStages:
    """The stages that have a record in ``published``.

    Args:
        work: what they were made of: it is uploaded no more, and deleted, when they are published.
    """

    def __init__(
        self, objects: ObjectStore, workspace: Workspace, published: PublishedIndex, cache: LocalCache, work: ObjectWork
    ) -> None:
        self._objects = objects
        self._workspace = workspace
        self._published = published
        self._cache = cache
        self._work = work

    def has(self, stage: Stage | StageRef) -> bool:
        return self._published.has(stage.name)

    def has_now(self, stage: Stage | StageRef) -> bool:
        return self._published.has_now(stage.name)

    def result(self, stage: Stage) -> dict[str, Any]:
        result: dict[str, Any] = self._published.record(stage.name).about["result"]
        return result

    def record(self, ref: StageRef) -> StageRecord | None:
        return self._published.description(ref.name)

    def records(self, kind: str) -> Iterator[StageRecord]:
        return self._published.descriptions(kind)

    def find(self, ref: StageRef) -> Path | None:
        return self._cache.fetch(ref.kind, ref.identity) if ref.is_plain and self.has(ref) else None

    def is_whole(self, stage: Stage) -> bool:
        return self._cache.is_whole(stage.kind, stage.identity)

    def fetch(self, stage: Stage) -> Path:
        return self._cache.fetch(stage.kind, stage.identity)

    def fetch_without(self, stage: Stage, left_out: tuple[str, ...], into: Path | None) -> Path:
        if self.is_whole(stage):
            return self.fetch(stage)
        if into is None:
            return self._cache.fetch_some(stage.kind, stage.identity, left_out)
        self._cache.fetch_without(stage.kind, stage.identity, left_out, into)
        return into

    def summaries(self, stages: Iterable[Stage]) -> dict[Stage, Path]:
        found = {stage: self._workspace.folder(stage) for stage in stages if self.has(stage)}
        self._cache.prefetch({stage.name for stage in found})
        return found

    def address(self, stage: Stage) -> str:
        found = self._published.record(stage.name)
        upload = found.files[RECORD].object.partition("/")[0]
        return self._objects.uri(f"{prefix_of(stage.kind, stage.identity)}/{upload}")

    def sign(self, ref: StageRef) -> str:
        return self._published.uri(ref.name)

    def publish(self, stage: Stage) -> None:
        self._work.stop_uploading(stage)
        # Another process has published the same while this one was taken for dead: its stage stands.
        if not self.has_now(stage):
            self._upload(stage, self._workspace.work_folder(stage))
        self._workspace.move_to_finished(stage)
        self._work.forget(stage)

    def recover(self, stage: Stage) -> None:
        if self.has_now(stage):
            return
        if self.is_whole(stage):
            # Kept by this machine while the object store lost it.
            if verify_folder(self._workspace.folder(stage)):
                shutil.rmtree(self._workspace.folder(stage))
            else:
                self._upload(stage, self._workspace.folder(stage))
                return
        if self._workspace.is_complete(stage):
            self.publish(stage)

    def corruption(self, stage: Stage) -> list[str]:
        if not self.has(stage):
            return [NOT_THERE]
        if self.is_whole(stage):
            if not verify_folder(self._workspace.folder(stage)):
                return []
            # Only the copy may be damaged.
            shutil.rmtree(self._workspace.folder(stage))
        try:
            self.fetch(stage)
        except CorruptedStage as error:
            return error.problems
        except FileNotFoundError:
            self._published.forget(stage.name)
            return [NOT_THERE]
        return []

    def verify(self, ref: StageRef) -> list[str] | None:
        try:
            found = self._published.record(ref.name)
        except FileNotFoundError:
            return ["its record cannot be read"]
        return manifest.check(self._objects, prefix_of(ref.kind, ref.identity), found)

    def quarantine(self, stage: Stage) -> str | None:
        try:
            content = self._objects.read(PublishedIndex.key(stage.name))
        except FileNotFoundError:
            self._published.forget(stage.name)
            return None
        key = f"damaged/{stage.name}-{time.time_ns():x}.json"
        self._objects.write(key, content)
        self._objects.delete([PublishedIndex.key(stage.name)])
        self._published.forget(stage.name)
        shutil.rmtree(self._workspace.folder(stage), ignore_errors=True)
        return self._objects.uri(key)

    def files(self) -> Iterator[StageFiles]:
        return object_contents.finished(self._objects, self._published)

    def _upload(self, stage: Stage, folder: Path) -> None:
        about = {"description": stage.description(), "result": read_result(folder)}
        key, prefix = PublishedIndex.key(stage.name), prefix_of(stage.kind, stage.identity)
        self._published.add(
            stage.name, manifest.send(self._objects, key, prefix, folder, recorded_names(folder), about)
        )
