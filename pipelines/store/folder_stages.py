"""Finished stages and work in progress in a folder, on a local or shared file system."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from calm_bench.kept_folders import make_folder
from pipelines.store.contents import StageFiles, finished_in, started_in
from pipelines.store.integrity import check_file, verify_folder
from pipelines.store.layout import STAGES
from pipelines.store.lease import Lease, LeaseManager
from pipelines.store.refs import StageRef
from pipelines.store.workspace import Workspace
from pipelines.study.stage import Stage
from pipelines.study.stage_folder import CONFIG_FILE, RESULT_FILE, StageRecord, is_finished, read_result

NOT_THERE = "it is not in the store"


class FolderStages:
    """The finished stages in a workspace: what is in their folders is all that there is to know."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._root = workspace.root

    def has(self, stage: Stage | StageRef) -> bool:
        return is_finished(self._workspace.folder(stage))

    def has_now(self, stage: Stage | StageRef) -> bool:
        return self.has(stage)

    def result(self, stage: Stage) -> dict[str, Any]:
        folder = self._workspace.folder(stage)
        # Before anything is made of its numbers.
        check_file(folder, RESULT_FILE)
        return read_result(folder)

    def record(self, ref: StageRef) -> StageRecord | None:
        folder = self.find(ref)
        return None if folder is None else StageRecord.load(folder)

    def records(self, kind: str) -> Iterator[StageRecord]:
        for path in sorted((self._root / STAGES / kind).glob(f"*/{CONFIG_FILE}")):
            yield StageRecord.load(path.parent)

    def find(self, ref: StageRef) -> Path | None:
        folder = self._workspace.folder(ref)
        return folder if ref.is_plain and (folder / CONFIG_FILE).is_file() else None

    def is_whole(self, stage: Stage) -> bool:
        return self.has(stage)

    def fetch(self, stage: Stage) -> Path:
        return self._workspace.folder(stage)

    def fetch_without(self, stage: Stage, left_out: tuple[str, ...], into: Path | None) -> Path:
        return self.fetch(stage)

    def summaries(self, stages: Iterable[Stage]) -> dict[Stage, Path]:
        return {stage: self._workspace.folder(stage) for stage in stages if self.has(stage)}

    def address(self, stage: Stage) -> str:
        # Below the store, which may move.
        return self._workspace.folder(stage).relative_to(self._root).as_posix()

    def sign(self, ref: StageRef) -> Path:
        return self._workspace.folder(ref)

    def publish(self, stage: Stage) -> None:
        self._workspace.move_to_finished(stage)

    def recover(self, stage: Stage) -> None:
        if not self.has(stage) and self._workspace.is_complete(stage):
            self.publish(stage)

    def corruption(self, stage: Stage) -> list[str]:
        if not self.has(stage):
            return [NOT_THERE]
        return verify_folder(self._workspace.folder(stage)) or []

    def verify(self, ref: StageRef) -> list[str] | None:
        return verify_folder(self._workspace.folder(ref))

    def quarantine(self, stage: Stage) -> Path | None:
        path = self._root / "damaged" / f"{stage.name}-{time.time_ns():x}"
        make_folder(path.parent)
        try:
            self._workspace.folder(stage).rename(path)
        except FileNotFoundError:
            return None
        return path

    def files(self) -> Iterator[StageFiles]:
        return finished_in(self._root)


class FolderWork:
    """The work folders of a workspace, each of one process at a time."""

    def __init__(self, workspace: Workspace, leases: LeaseManager) -> None:
        self._workspace = workspace
        self._leases = leases

    def has(self, stage: Stage) -> bool:
        return self._workspace.work_folder(stage).exists()

    def acquire(self, stage: Stage) -> Lease | None:
        return self._leases.acquire(stage.name)

    def open(self, stage: Stage, device: str) -> Path:
        return self._workspace.open_work(stage, device)

    def files(self) -> Iterator[StageFiles]:
        return started_in(self._workspace.root)
