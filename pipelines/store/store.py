"""The store: finished stages by identity, and work in progress. In its folder are

    stages/<kind>/<identity>/   finished: config.json, result.json, provenance.json, metrics.jsonl, artifacts,
                                and files.json, which holds the hashes of all of them
    work/<kind>-<identity>/     unfinished; kept over crashes so that training continues where it was
    damaged/                    stages that were found damaged and are made anew; `calm-bench store gc` clears it
    leases/                     who works on what
    studies/<name>-<identity>/  journals and leaderboards

A finished folder appears by one rename: whoever sees it sees all of it. The same layout, on this machine, is the
cache of a store whose home is an object store: :mod:`pipelines.store.remote`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.store.contents import PartialStage, StageFiles, begun_in, finished_in, left_behind_in
from pipelines.store.flags import Flag
from pipelines.store.folder_leases import EXPIRY_S, HEARTBEAT_S, leases_in
from pipelines.store.holder import Holder
from pipelines.store.integrity import RECORD, find_changes, find_damage, record_files, recorded_names
from pipelines.store.lease import Lease, LeaseManager
from pipelines.store.names import is_plain
from pipelines.store.provenance import ATTEMPTS_FILE, add_attempt, write_provenance
from pipelines.store.refs import StageRef
from pipelines.study.stage import Stage
from pipelines.study.stage_folder import (
    CONFIG_FILE,
    StageRecord,
    is_finished,
    read_result,
    write_description,
    write_result,
)

ERROR = "error.txt"
"""The traceback of the last attempt that failed, in the work folder."""


class Store:
    """Stage folders under one root, on a local or shared file system."""

    wait_s = 0.2
    """How often to look whether another process has finished a stage that both need."""
    flags_every_s = 0.25
    """How often to look for flags."""

    def __init__(self, root: Path | str, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.root = Path(root).absolute()
        self._local_leases = leases_in(self.root / "leases", expiry_s, heartbeat_s)

    @property
    def leases(self) -> LeaseManager:
        return self._local_leases

    @property
    def folder_leases(self) -> LeaseManager:
        """For what lies in :attr:`root` alone, which another host need not share."""
        return self._local_leases

    @property
    def place(self) -> str:
        """Where the store is, for people."""
        return str(self.root)

    def exists(self) -> bool:
        """Whether there is anything."""
        return self.root.is_dir()

    def try_out(self) -> None:
        """Write something into the home of the store and read it back.

        Raises:
            StoreUnreachable, StoreForbidden: it is elsewhere and cannot be used; says what is missing.
        """

    def folder(self, stage: Stage) -> Path:
        """Where the finished stage is, or will be."""
        return self.root / "stages" / stage.kind / stage.identity

    def work_folder(self, stage: Stage) -> Path:
        """Where the stage is worked on until it is finished."""
        return self.root / "work" / stage.name

    def is_done(self, stage: Stage) -> bool:
        return is_finished(self.folder(stage))

    def is_begun(self, stage: Stage) -> bool:
        """Whether an earlier attempt left something to go on from."""
        return self.work_folder(stage).exists()

    def is_here(self, stage: Stage) -> bool:
        """Whether the finished stage's folder can be read without fetching it."""
        return self.is_done(stage)

    def fetch(self, stage: Stage) -> Path:
        """The folder of the finished stage, brought to this machine where it was elsewhere."""
        return self.folder(stage)

    def summary_folder(self, stage: Stage) -> Path:
        """A folder with the small files of the finished stage, at least: all but weights and texts."""
        return self.folder(stage)

    def refresh(self, stage: Stage) -> None:
        """Take note of what another process, perhaps on another host, has just made of ``stage``."""

    def bring_summaries(self, stages: Iterable[Stage]) -> None:
        """Bring the small files of those of ``stages`` that are finished to this machine, together."""

    def bring_studies(self) -> None:
        """Bring the folders of all studies to this machine, with the small files of their finished stages."""

    def address(self, stage: Stage) -> str:
        """Where the finished stage is kept, for people and leaderboards: below the store, which may move."""
        return self.folder(stage).relative_to(self.root).as_posix()

    def find_folder(self, kind: str, identity: str) -> Path | None:
        """The folder of the finished stage of that name, brought here if it was elsewhere; None if there is none."""
        folder = self.root / "stages" / kind / identity
        inside = is_plain(kind) and is_plain(identity)
        return folder if inside and (folder / CONFIG_FILE).is_file() else None

    def record(self, ref: StageRef) -> StageRecord | None:
        """What the finished stage of that name says of itself; None if there is none."""
        folder = self.find_folder(ref.kind, ref.identity)
        return None if folder is None else StageRecord.load(folder)

    def records(self, kind: str) -> Iterator[StageRecord]:
        """The descriptions of all finished stages of ``kind``, by identity."""
        for path in sorted((self.root / "stages" / kind).glob(f"*/{CONFIG_FILE}")):
            yield StageRecord.load(path.parent)

    def result(self, stage: Stage) -> dict[str, Any]:
        """What the finished stage returned.

        Raises:
            FileNotFoundError: the stage is not finished.
        """
        return read_result(self.folder(stage))

    def claim(self, stage: Stage) -> Lease | None:
        """The exclusive right to work on ``stage`` (a context manager), or None while a live process has it.

        A stage that was complete when its process was killed on the way to publish it is published now.
        """
        lease = self.leases.acquire(stage.name)
        if lease is not None:
            try:
                self._take_up(stage)
            except BaseException:
                lease.release()
                raise
        return lease

    def is_claimed(self, stage: Stage) -> bool:
        """Whether a live process works on ``stage``."""
        return self.holder(stage) is not None

    def holder(self, stage: Stage) -> Holder | None:
        """The live process that works on ``stage``, if any."""
        return self.leases.holder(stage.name)

    def open_work(self, stage: Stage, device: str) -> Path:
        """The work folder, made or found as an earlier attempt left it; notes this attempt."""
        folder = self.work_folder(stage)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        write_description(folder, stage.description())
        add_attempt(folder, device)
        return folder

    def publish(
        self,
        stage: Stage,
        result: Mapping[str, Any],
        provenance: Mapping[str, Any],
        scratch: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Make the work folder the finished stage, without the names in ``scratch``; return the result as stored.

        Raises:
            ValueError, TypeError: the result is not JSON, or holds NaN or infinity.
        """
        work = self.work_folder(stage)
        write_provenance(work, provenance)
        write_result(work, result)
        record_files(work, [*scratch, ATTEMPTS_FILE, ERROR])
        self._place(stage)
        return self.result(stage)

    def _take_up(self, stage: Stage) -> None:
        """With the lease just acquired: finish what a killed process had nearly finished."""
        work = self.work_folder(stage)
        if (work / RECORD).exists() and not self.is_done(stage) and find_changes(work) == []:
            self._place(stage)

    def _place(self, stage: Stage) -> None:
        """Make the work folder, whose record says that it is complete, the finished stage."""
        work, final = self.work_folder(stage), self.folder(stage)
        _keep_recorded(work)
        _flush_tree(work)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            work.rename(final)
        except OSError:
            # Someone finished the same stage while this process was taken for dead: equal work, theirs stands.
            if not is_finished(final):
                raise
            shutil.rmtree(work)
        _flush(final.parent)

    def damage(self, stage: Stage) -> list[str]:
        """What keeps ``stage`` from being read: files that are missing or changed; reads all of them.

        Empty for an intact stage, and for one without recorded hashes as long as its result is there.
        """
        if not self.is_done(stage):
            return ["it is not in the store"]
        return find_damage(self.folder(stage)) or []

    def quarantine(self, stage: Stage) -> Path | str | None:
        """Move a damaged finished stage out of the way, so that it is made anew; returns where to.

        None where another process has done so, or works on it.
        """
        lease = self.claim(stage)
        if lease is None:
            return None
        with lease:
            place = self.root / "damaged" / f"{stage.name}-{time.time_ns():x}"
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.folder(stage).rename(place)
            except FileNotFoundError:
                return None
            return place

    def verify(self, kind: str, identity: str) -> list[str] | None:
        """What is wrong with a finished stage where it is kept, as :func:`pipelines.store.integrity.find_damage`."""
        return find_damage(self.root / "stages" / kind / identity)

    def finished(self) -> Iterator[StageFiles]:
        """All finished stages."""
        return finished_in(self.root)

    def begun(self) -> Iterator[StageFiles]:
        """All stages that were begun and are not finished."""
        return begun_in(self.root)

    def left_behind(self) -> Iterator[PartialStage]:
        """What is no stage and can go."""
        yield from left_behind_in(self.root)
        for dead in self._local_leases.sweep(delete=False):
            yield PartialStage(dead.name, "its holder is gone", dead.place, dead.size)

    def discard(self, place: Path | str) -> None:
        """Remove what is at ``place``: renamed first, so that nobody ever sees a stage of which half is gone."""
        path = Path(place)
        trash = self.root / "trash"
        trash.mkdir(parents=True, exist_ok=True)
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

    def sweep_leases(self) -> None:
        """Remove leases that dead processes left."""
        self._local_leases.sweep()

    @contextmanager
    def open_study(self, name: str, exclusive: bool = True) -> Iterator[Path]:
        """The folder of the study ``name``, as the last driver left it, while this driver runs it.

        Args:
            exclusive: whether the folder holds what only one driver may write at a time. It makes a difference only
                where the store is no file system, which lets drivers share a journal.

        Raises:
            StudyBusy: another driver has it, and this store cannot let two share it.
        """
        yield self.root / "studies" / name

    def save_study(self, name: str) -> None:
        """Let other hosts see what changed in the study's folder."""

    def study_folders(self) -> list[Path]:
        """The folders of all studies."""
        return sorted((self.root / "studies").glob("*"))

    def flag(self, name: str) -> Flag:
        """The flag ``name``, by which processes on any host that work with this store hear of each other."""
        return self.root / "stop" / name

    def raise_flag(self, name: str) -> None:
        """Raise the flag ``name``."""
        (self.root / "stop").mkdir(parents=True, exist_ok=True)
        self.flag(name).touch()

    def lower_flags(self, beginning: str) -> None:
        """Lower all flags whose names begin so."""
        for path in (self.root / "stop").glob(f"{beginning}*"):
            path.unlink(missing_ok=True)


def _keep_recorded(folder: Path) -> None:
    """Remove what is no part of the finished stage: checkpoints, and what a killed process left half-written."""
    kept = {folder / name for name in recorded_names(folder)}
    for place, folders, names in os.walk(folder, topdown=False):
        for path in (Path(place) / name for name in (*names, *folders)):
            if path.is_symlink() or not path.is_dir():
                if path not in kept:
                    path.unlink()
            elif not any(path in file.parents for file in kept):
                path.rmdir()


def _flush_tree(folder: Path) -> None:
    """Bring every file and folder below ``folder`` to disk, so that a power cut cannot leave a renamed husk."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _flush(Path(place) / name)
        _flush(Path(place))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
