"""A store in a folder: its workspace is all of it, and other processes see each change as it is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.store.contents import PartialStage, left_behind_in
from pipelines.store.flags import FolderFlags
from pipelines.store.folder_leases import EXPIRY_S, HEARTBEAT_S, leases_in
from pipelines.store.folder_stages import FolderStages, FolderWork
from pipelines.store.layout import STUDIES
from pipelines.store.lease import LeaseManager
from pipelines.store.study_drivers import StudyDrivers
from pipelines.store.workspace import Workspace, flush


class FolderStudies:
    """The folders of studies below ``root``; drivers that share a file system share them."""

    def __init__(self, root: Path, leases: LeaseManager) -> None:
        self._folder = root / STUDIES
        self._drivers = StudyDrivers(leases, str(root), share_journals=True)

    @contextmanager
    def open(self, name: str, database: str | None = None) -> Iterator[Path]:
        with self._drivers.running(name, database):
            yield self._folder / name

    def save(self, name: str) -> None:
        # Files are flushed when they are written; that they are there at all is in the folder.
        flush(self._folder / name)

    def folders(self, complete: bool = False) -> list[Path]:
        return sorted(self._folder.glob("*"))


class FolderBackend:
    """Stages, leases, studies and flags below ``root``, on a local or shared file system.

    Args:
        expiry_s: seconds without a sign of life after which the holder of a lease is taken for dead.
        heartbeat_s: seconds between two signs of life.
    """

    wait_s = 0.2
    flags_every_s = 0.25
    progress = None

    def __init__(self, root: Path, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._settings = (root, expiry_s, heartbeat_s)
        self.uri = str(root)
        self.workspace = Workspace(root)
        self.leases = self.folder_leases = leases_in(root / "leases", expiry_s, heartbeat_s)
        self.stages = FolderStages(self.workspace)
        self.work = FolderWork(self.workspace, self.leases)
        self.studies = FolderStudies(root, self.leases)
        self.flags = FolderFlags(root)

    def __reduce__(self) -> tuple[Any, ...]:
        return FolderBackend, self._settings

    def exists(self) -> bool:
        return self.workspace.root.is_dir()

    def try_out(self) -> None:
        self.workspace.check_writable()

    def left_behind(self) -> Iterator[PartialStage]:
        yield from left_behind_in(self.workspace.root)
        for dead in self.leases.sweep(delete=False):
            yield PartialStage(dead.name, "its holder is gone", dead.uri, dead.size)

    def discard(self, uri: Path | str) -> None:
        self.workspace.discard(Path(uri))
