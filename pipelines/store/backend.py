"""What a store is composed over: where finished stages, work in progress and studies are kept for others to see.

There are two backends: a folder, on a local or shared file system (:mod:`pipelines.store.folder_backend`), and an
object store with a folder on this machine to work in (:mod:`pipelines.store.object_backend`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from pipelines.store.contents import PartialStage, StageFiles
from pipelines.store.flags import Flags
from pipelines.store.lease import Lease, LeaseManager
from pipelines.store.refs import StageRef
from pipelines.store.remote_progress import RemoteProgress
from pipelines.store.workspace import Workspace
from pipelines.study.stage import Stage
from pipelines.study.stage_folder import StageRecord


class FinishedStages(Protocol):
    """The finished stages of a store."""

    def has(self, stage: Stage | StageRef) -> bool:
        """Whether the stage is finished; what was so a moment ago counts."""

    def has_now(self, stage: Stage | StageRef) -> bool:
        """Whether the stage is finished at this moment, also where another host has just published or removed it."""

    def result(self, stage: Stage) -> dict[str, Any]:
        """What the finished stage returned.

        Raises:
            FileNotFoundError: the stage is not finished.
        """

    def record(self, ref: StageRef) -> StageRecord | None:
        """What the finished stage says of itself; None if there is none."""

    def records(self, kind: str) -> Iterator[StageRecord]:
        """The descriptions of all finished stages of ``kind``, by identity."""

    def find(self, ref: StageRef) -> Path | None:
        """The folder of the finished stage with all its files; None if there is none."""

    def is_whole(self, stage: Stage) -> bool:
        """Whether all files of the finished stage are on this machine."""

    def fetch(self, stage: Stage) -> Path:
        """The folder of the finished stage, with all its files on this machine.

        Raises:
            FileNotFoundError: the stage is not finished.
            CorruptedStage: what is kept is not what was published.
        """

    def fetch_without(self, stage: Stage, left_out: tuple[str, ...], into: Path | None) -> Path:
        """The folder of the finished stage, of which files may be kept elsewhere whose names begin as one of
        ``left_out``.

        Args:
            into: where the others go, if the stage is not on this machine; what was there is removed. None is the place
                of the copies of stages, where they and what is brought of the rest stay.

        Raises:
            FileNotFoundError: the stage is not finished.
            CorruptedStage: what is kept is not what was published.
        """

    def summaries(self, stages: Iterable[Stage]) -> dict[Stage, Path]:
        """Folders of those of ``stages`` that are finished, with their small files at least: all but weights and texts.

        Many that are elsewhere come together, not one by one.

        Raises:
            CorruptedStage: a file that had to come from elsewhere is not what was published.
        """

    def address(self, stage: Stage) -> str:
        """Where the finished stage is kept, for people and leaderboards."""

    def sign(self, ref: StageRef) -> Path | str:
        """What makes the stage a finished one, for people: without it there is none, whatever else is kept of it."""

    def publish(self, stage: Stage) -> None:
        """Make the complete work folder the finished stage. Where another process was first, its work stands."""

    def recover(self, stage: Stage) -> None:
        """Publish what a killed process had completed and not published; the caller holds the stage's lease."""

    def corruption(self, stage: Stage) -> list[str]:
        """What keeps the stage from being read here, one phrase each; reads all files."""

    def verify(self, ref: StageRef) -> list[str] | None:
        """What is wrong with the stage where it is kept; None where it was published without hashes."""

    def quarantine(self, stage: Stage) -> Path | str | None:
        """Move a damaged stage out of the way; returns where to, None if it is gone. The caller holds its lease."""

    def files(self) -> Iterator[StageFiles]:
        """All finished stages, with sizes and times."""


class WorkInProgress(Protocol):
    """The stages that were started and are not finished."""

    def has(self, stage: Stage) -> bool:
        """Whether an earlier attempt left something to go on from."""

    def acquire(self, stage: Stage) -> Lease | None:
        """The exclusive right to work on the stage, or None while a live process has it."""

    def open(self, stage: Stage, device: str) -> Path:
        """The work folder, as the last attempt on any host left it; notes this attempt."""

    def files(self) -> Iterator[StageFiles]:
        """All started stages, with sizes and times."""


class StudyFolders(Protocol):
    """The folders of studies."""

    def open(self, name: str, database: str | None = None) -> AbstractContextManager[Path]:
        """The folder of the study ``name``, as the last driver left it, while this driver runs it.

        Args:
            database: the database in which the trials are kept, by what no other has; None where they are in a journal
                in the folder, which only a file system lets drivers share.

        Raises:
            StudyBusy: another driver has it, and this store cannot let two share it, or keeps the trials elsewhere.
        """

    def save(self, name: str) -> None:
        """Let what changed in the study's folder outlive this process, and this machine where the store is elsewhere.

        Raises:
            StudyBusy: another driver has taken the study over.
        """

    def folders(self, complete: bool = False) -> list[Path]:
        """The folders of all studies, by name, with what commands read of studies that they do not run.

        Args:
            complete: with all their files but journals, and the small files of their finished stages.
        """


class StoreBackend(Protocol):
    """Where a store is."""

    wait_s: float
    """How often to look whether another process has finished a stage that both need."""
    flags_every_s: float
    """How often to look for flags."""

    @property
    def uri(self) -> str:
        """Folder or address, for people."""

    @property
    def workspace(self) -> Workspace:
        """The folder on this machine in which stages are worked on."""

    @property
    def leases(self) -> LeaseManager:
        """Who works on what, for all processes that share the store."""

    @property
    def folder_leases(self) -> LeaseManager:
        """For what lies in the workspace alone, which another host need not share."""

    @property
    def stages(self) -> FinishedStages: ...

    @property
    def work(self) -> WorkInProgress: ...

    @property
    def studies(self) -> StudyFolders: ...

    @property
    def flags(self) -> Flags: ...

    @property
    def progress(self) -> RemoteProgress | None:
        """How studies get on that run on other hosts; None where their files in the workspace tell it."""

    def exists(self) -> bool:
        """Whether anything is there."""

    def try_out(self) -> None:
        """Find out whether the store can be used, before a study does.

        Raises:
            StoreUnreachable, StoreForbidden: it cannot; says what is missing.
        """

    def left_behind(self) -> Iterator[PartialStage]:
        """What is no stage and can go."""

    def discard(self, uri: Path | str) -> None:
        """Remove what is at ``uri``, so that nobody ever sees a stage of which half is gone."""
