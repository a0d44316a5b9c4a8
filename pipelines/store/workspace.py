"""The folder on this machine in which stages are worked on; :mod:`pipelines.store.store` shows its layout."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from calm_bench.kept_folders import make_folder
from pipelines.common.record_file import RecordError
from pipelines.store.errors import StoreForbidden
from pipelines.store.integrity import RECORD, compare_files, record_files, recorded_names
from pipelines.store.layout import stage_folder, work_folder
from pipelines.store.provenance import ATTEMPTS_FILE, add_attempt, write_provenance
from pipelines.store.refs import StageRef
from pipelines.study.stage import Stage
from pipelines.study.stage_folder import StageRecord, is_finished, write_description, write_result

INPUTS = "inputs"
"""In the work folder: what was brought of inputs that are not whole on this machine."""
ERROR = "error.txt"
"""The traceback of the last attempt that failed, in the work folder."""


class Workspace:
    """Folders of stages below ``root``: while they are worked on, and once they are finished."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, stage: Stage | StageRef) -> Path:
        """Where the finished stage is, or will be."""
        return stage_folder(self.root, stage.kind, stage.identity)

    def work_folder(self, stage: Stage | StageRef) -> Path:
        """Where the stage is worked on until it is finished."""
        return work_folder(self.root, stage.name)

    def others_of(self, stage: Stage) -> list[Path]:
        """Folders of other finished stages of the kind and revision of ``stage``, in the order of their identities."""
        own = self.folder(stage)
        folders = sorted(folder for folder in own.parent.glob("*") if is_finished(folder) and folder != own)
        return [folder for folder in folders if _revision(folder) == stage.revision]

    def check_writable(self) -> None:
        """
        Raises:
            StoreForbidden: the folder, or where it would be made, cannot be written to.
        """
        existing = self.root
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise StoreForbidden(
                f"{existing} cannot be written to; choose another folder with --store, or with CALM_BENCH_CACHE for "
                "copies of a remote one"
            )

    def open_work(self, stage: Stage, device: str) -> Path:
        """The work folder, made or found as an earlier attempt left it; notes this attempt."""
        folder = self.work_folder(stage)
        make_folder(folder)
        (folder / RECORD).unlink(missing_ok=True)
        write_description(folder, stage.description())
        add_attempt(folder, device)
        return folder

    def complete(
        self, stage: Stage, result: Mapping[str, Any], provenance: Mapping[str, Any], scratch: Sequence[str] = ()
    ) -> None:
        """Write into the work folder what makes it a finished stage; the record of its files last, without ``scratch``.

        Raises:
            ValueError, TypeError: the result is not JSON, or holds NaN or infinity.
        """
        work = self.work_folder(stage)
        write_provenance(work, provenance)
        write_result(work, result)
        record_files(work, [*scratch, INPUTS, ATTEMPTS_FILE, ERROR])

    def is_complete(self, stage: Stage) -> bool:
        """Whether the work folder is a finished stage by its record, that is only not yet moved."""
        work = self.work_folder(stage)
        return (work / RECORD).exists() and compare_files(work) == []

    def move_to_finished(self, stage: Stage) -> None:
        """Make the complete work folder the finished stage, by one rename; what its record does not list goes."""
        work, final = self.work_folder(stage), self.folder(stage)
        _keep_recorded(work)
        _flush_tree(work)
        make_folder(final.parent)
        try:
            work.rename(final)
        except OSError:
            # Someone finished the same stage while this process was taken for dead: equal work, theirs stands.
            if not is_finished(final):
                raise
            shutil.rmtree(work)
        flush(final.parent)

    def discard(self, path: Path) -> None:
        """Remove a file or folder: renamed first, so that nobody ever sees a stage of which half is gone."""
        trash = self.root / "trash"
        make_folder(trash)
        gone = path if path.parent == trash else trash / f"{path.name}-{time.time_ns():x}"
        try:
            if gone != path:
                path.rename(gone)
        except FileNotFoundError:
            return
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone)
        else:
            gone.unlink()
        for folder in (trash, self.root / "damaged"):
            with suppress(OSError):
                folder.rmdir()


def _revision(folder: Path) -> int | None:
    """The revision of the kind that made a stage; None where its description cannot be read."""
    try:
        return StageRecord.load(folder).revision
    except (FileNotFoundError, RecordError):
        return None


def _flush_tree(folder: Path) -> None:
    """Bring every file and folder below ``folder`` to disk, so that a power cut cannot leave a renamed husk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(Path(parent) / name)
        flush(Path(parent))


def _keep_recorded(folder: Path) -> None:
    """Remove what is no part of the finished stage: checkpoints, and what a killed process left half-written."""
    kept = {folder / name for name in recorded_names(folder)}
    holding = {parent for file in kept for parent in file.parents}
    for parent, folders, names in os.walk(folder, topdown=False):
        for path in (Path(parent) / name for name in (*names, *folders)):
            if path.is_symlink() or not path.is_dir():
                if path not in kept:
                    path.unlink()
            elif path not in holding:
                path.rmdir()


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
