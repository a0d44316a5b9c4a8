"""Work in progress in an object store: done in a folder on this machine, and uploaded now and then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipelines.store import object_contents
from pipelines.store.checkpoint_upload import (
    SAVE_EVERY_S,
    CheckpointUploader,
    delete_saved_work,
    restore_work,
    saved_work,
)
from pipelines.store.contents import StageFiles
from pipelines.store.lease import Lease, LeaseManager
from pipelines.store.object_store import ObjectStore
from pipelines.store.workspace import Workspace
from pipelines.study.stage import Stage


class ObjectWork:
    """Stages that were started, with their checkpoints uploaded while a process works on them.

    Args:
        save_every_s: least time between two uploads of a stage's checkpoints.
    """

    def __init__(
        self, objects: ObjectStore, workspace: Workspace, leases: LeaseManager, save_every_s: float = SAVE_EVERY_S
    ) -> None:
        self._objects = objects
        self._workspace = workspace
        self._root = workspace.root
        self._leases = leases
        self._save_every_s = save_every_s
        self._uploaders: dict[str, CheckpointUploader] = {}

    def has(self, stage: Stage) -> bool:
        return self._workspace.work_folder(stage).exists() or saved_work(self._objects, stage.name) is not None

    def acquire(self, stage: Stage) -> Lease | None:
        lease = self._leases.acquire(stage.name)
        if lease is not None:
            lease.before_release(lambda: self._save_last(stage))
        return lease

    def open(self, stage: Stage, device: str) -> Path:
        work, note = self._workspace.work_folder(stage), self._note(stage)
        restore_work(self._objects, stage.name, work, self._root / "incoming", note)
        folder = self._workspace.open_work(stage, device)
        self._uploaders[stage.name] = CheckpointUploader(
            self._objects, stage.name, folder, self._root / "outgoing", note, self._save_every_s
        )
        return folder

    def files(self) -> Iterator[StageFiles]:
        return object_contents.started(self._objects, self._leases)

    def stop_uploading(self, stage: Stage, save: bool = False) -> None:
        """Upload no more checkpoints of the stage, but those of this moment if ``save``."""
        uploader = self._uploaders.pop(stage.name, None)
        if uploader is not None:
            uploader.close(save)

    def forget(self, stage: Stage) -> None:
        """Delete what was uploaded of the work on a stage that is finished now."""
        delete_saved_work(self._objects, stage.name, self._note(stage))

    def _save_last(self, stage: Stage) -> None:
        # Files that could not be uploaded are still on this machine.
        with suppress(OSError):
            self.stop_uploading(stage, save=True)

    def _note(self, stage: Stage) -> Path:
        return self._root / "saved" / stage.name
