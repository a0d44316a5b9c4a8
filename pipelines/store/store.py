"""The store: finished stages by identity, and work in progress. In its folder are

    stages/<kind>/<identity>/   finished: config.json, result.json, provenance.json, metrics.jsonl, artifacts,
                                and files.json, which holds the hashes of all of them
    work/<kind>-<identity>/     unfinished; kept over crashes so that training continues where it was
    damaged/                    stages that were found damaged and are made anew; `calm-bench store gc` clears it
    leases/                     who works on what
    studies/<name>-<identity>/  journals and leaderboards

A finished folder appears by one rename: whoever sees it sees all of it. The same layout, on this machine, is the
cache of a store that is kept in an object store: :mod:`pipelines.store.object_backend`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.store.backend import StoreBackend, StudyFolders
from pipelines.store.contents import PartialStage, StageFiles
from pipelines.store.flags import Flags
from pipelines.store.folder_backend import FolderBackend
from pipelines.store.holder import Holder
from pipelines.store.lease import Lease, LeaseManager
from pipelines.store.refs import StageRef
from pipelines.store.remote_progress import RemoteProgress
from pipelines.study.stage import Stage
from pipelines.study.stage_folder import StageRecord


class Store:
    """Stages, and the studies that need them.

    Args:
        where: a folder, or a backend that keeps the store elsewhere.
    """

    def __init__(self, where: Path | str | StoreBackend) -> None:
        self.backend: StoreBackend = FolderBackend(_absolute(Path(where))) if isinstance(where, str | Path) else where
        self._workspace = self.backend.workspace
        self._stages = self.backend.stages
        self._work = self.backend.work

    def __reduce__(self) -> tuple[type[Store], tuple[StoreBackend]]:
        return Store, (self.backend,)

    @property
    def root(self) -> Path:
        """The folder on this machine in which stages are worked on and studies have their files."""
        return self._workspace.root

    @property
    def uri(self) -> str:
        """Folder or address of the store, for people."""
        return self.backend.uri

    @property
    def is_folder(self) -> bool:
        """Whether :attr:`root` is all of the store: processes that share it need nothing else."""
        return self.uri == str(self.root)

    @property
    def leases(self) -> LeaseManager:
        """Who works on what, for all processes that share the store."""
        return self.backend.leases

    @property
    def folder_leases(self) -> LeaseManager:
        """For what lies in :attr:`root` alone, which another host need not share."""
        return self.backend.folder_leases

    @property
    def studies(self) -> StudyFolders:
        """The folders of studies."""
        return self.backend.studies

    @property
    def flags(self) -> Flags:
        """By which processes on any host that work with this store hear of each other."""
        return self.backend.flags

    @property
    def progress(self) -> RemoteProgress | None:
        """How studies get on that run on other hosts; None where their files in :attr:`root` tell it."""
        return self.backend.progress

    def exists(self) -> bool:
        """Whether anything is there."""
        return self.backend.exists()

    def try_out(self) -> None:
        """Find out whether the store can be used, before a study does.

        Raises:
            StoreUnreachable, StoreForbidden: it cannot; says what is missing.
        """
        self.backend.try_out()

    def folder(self, stage: Stage) -> Path:
        """Where the finished stage is on this machine, or will be."""
        return self._workspace.folder(stage)

    def work_folder(self, stage: Stage) -> Path:
        """Where the stage is worked on until it is finished."""
        return self._workspace.work_folder(stage)

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage is finished; what was so a moment ago counts."""
        return self._stages.has(stage)

    def is_done_now(self, stage: Stage) -> bool:
        """Whether the stage is finished at this moment, also where another host has just published or removed it."""
        return self._stages.has_now(stage)

    def is_started(self, stage: Stage) -> bool:
        """Whether an earlier attempt left something to go on from."""
        return self._work.has(stage)

    def is_whole(self, stage: Stage) -> bool:
        """Whether the finished stage's folder can be read without fetching it."""
        return self._stages.is_whole(stage)

    def fetch(self, stage: Stage) -> Path:
        """The folder of the finished stage, with all its files on this machine.

        Raises:
            FileNotFoundError: the stage is not finished.
            CorruptedStage: what is kept is not what was published.
        """
        return self._stages.fetch(stage)

    def fetch_without(self, stage: Stage, left_out: tuple[str, ...], into: str | Path | None = None) -> Path:
        """The folder of the finished stage, of which files may be kept elsewhere whose names begin as one of
        ``left_out``.

        Args:
            into: where the others go, if the stage is not on this machine; what was there is removed. None is the place
                of the copies of stages, where they and what is brought of the rest stay.

        Raises:
            FileNotFoundError: the stage is not finished.
            CorruptedStage: what is kept is not what was published.
        """
        return self._stages.fetch_without(stage, left_out, None if into is None else Path(into))

    def summaries(self, stages: Iterable[Stage]) -> dict[Stage, Path]:
        """Folders of those of ``stages`` that are finished, with their small files at least: all but weights and texts.

        Many that are elsewhere come together, not one by one.

        Raises:
            CorruptedStage: a file that had to come from elsewhere is not what was published; says what to do.
        """
        return self._stages.summaries(stages)

    def address(self, stage: Stage) -> str:
        """Where the finished stage is kept, for people and leaderboards; below the store, if that may move."""
        return self._stages.address(stage)

    def sign(self, kind: str, identity: str) -> Path | str:
        """What somebody removes who wants the finished stage of that name made anew: its folder, or its record."""
        return self._stages.sign(StageRef(kind, identity))

    def find_folder(self, kind: str, identity: str) -> Path | None:
        """The folder of the finished stage of that name with all its files; None if there is none."""
        return self._stages.find(StageRef(kind, identity))

    def others_of(self, stage: Stage) -> list[Path]:
        """Folders on this machine of other finished stages of the kind and revision of ``stage``."""
        return self._workspace.others_of(stage)

    def record(self, ref: StageRef) -> StageRecord | None:
        """What the finished stage of that name says of itself; None if there is none."""
        return self._stages.record(ref)

    def records(self, kind: str) -> Iterator[StageRecord]:
        """The descriptions of all finished stages of ``kind``, by identity."""
        return self._stages.records(kind)

    def result(self, stage: Stage) -> dict[str, Any]:
        """What the finished stage returned.

        Raises:
            FileNotFoundError: the stage is not finished.
        """
        return self._stages.result(stage)

    def claim(self, stage: Stage) -> Lease | None:
        """The exclusive right to work on ``stage`` (a context manager), or None while a live process has it.

        A stage that was complete when its process was killed on the way to publish it is published now.
        """
        lease = self._work.acquire(stage)
        if lease is not None:
            try:
                self._stages.recover(stage)
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
        return self._work.open(stage, device)

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
        self._workspace.complete(stage, result, provenance, scratch)
        self._stages.publish(stage)
        return self.result(stage)

    def corruption(self, stage: Stage) -> list[str]:
        """What keeps ``stage`` from being read: files that are missing or changed; reads all of them.

        Empty for an intact stage, and for one without recorded hashes as long as its result is there.
        """
        return self._stages.corruption(stage)

    def quarantine(self, stage: Stage) -> Path | str | None:
        """Move a damaged finished stage out of the way, so that it is made anew; returns where to.

        None where another process has done so, or works on it.
        """
        lease = self.leases.acquire(stage.name)
        if lease is None:
            return None
        with lease:
            return self._stages.quarantine(stage)

    def verify(self, kind: str, identity: str) -> list[str] | None:
        """What is wrong with a finished stage where it is kept, as :func:`pipelines.store.integrity.verify_folder`."""
        return self._stages.verify(StageRef(kind, identity))

    def finished(self) -> Iterator[StageFiles]:
        """All finished stages."""
        return self._stages.files()

    def started(self) -> Iterator[StageFiles]:
        """All stages that were started and are not finished."""
        return self._work.files()

    def left_behind(self) -> Iterator[PartialStage]:
        """What is no stage and can go."""
        return self.backend.left_behind()

    def discard(self, uri: Path | str) -> None:
        """Remove what is at ``uri``, so that nobody ever sees a stage of which half is gone."""
        self.backend.discard(uri)


def _absolute(where: Path) -> Path:
    """``where`` by a name that does not lead through the working directory and out of it again: that may be renamed."""
    return where.resolve() if ".." in where.parts else where.absolute()
