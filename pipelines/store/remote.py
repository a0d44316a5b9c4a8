"""A store whose home is an object store, with a folder on this machine to work in. At home are

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
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from calm_bench.errors import RunError
from pipelines.store import manifest, remote_contents
from pipelines.store.checkpoint_upload import SAVE_EVERY_S, CheckpointUploader, adopt, discard_saved, saved_work
from pipelines.store.contents import PartialStage, StageFiles, left_behind_in
from pipelines.store.flags import RemoteFlag
from pipelines.store.integrity import RECORD, find_changes, find_damage, recorded_names
from pipelines.store.lease import Lease, LeaseManager
from pipelines.store.local_cache import DamagedStage, LocalCache, prefix_of
from pipelines.store.names import is_plain
from pipelines.store.object_leases import EXPIRY_S, HEARTBEAT_S, leases_at
from pipelines.store.object_store import ObjectStore, StoreUnreachable
from pipelines.store.published_index import PublishedIndex
from pipelines.store.refs import StageRef
from pipelines.store.remote_progress import SEND_S, RemoteProgress, Sender
from pipelines.store.remote_studies import RemoteStudies, stages_of
from pipelines.store.store import Store
from pipelines.study.stage import Stage
from pipelines.study.stage_folder import StageRecord, read_result


class StudyBusy(RunError, RuntimeError):
    """Another driver runs the study, and the store cannot let two drivers share its journal."""


CACHE = "CALM_BENCH_CACHE"
"""Environment variable: the folder for local copies of remote stores; else the user's cache folder."""


class RemoteStore(Store):
    """Stages at ``home``, worked on in ``root``.

    Args:
        save_every_s: least time between two uploads of a stage's checkpoints.
    """

    wait_s = 2.0
    flags_every_s = 4.0
    progress_every_s = SEND_S
    """How often a driver lets others see how its study gets on."""

    def __init__(
        self,
        home: ObjectStore,
        root: Path,
        expiry_s: float = EXPIRY_S,
        heartbeat_s: float = HEARTBEAT_S,
        save_every_s: float = SAVE_EVERY_S,
    ) -> None:
        super().__init__(root)
        self.home = home
        self._settings = (expiry_s, heartbeat_s, save_every_s)
        self._leases = leases_at(home, expiry_s, heartbeat_s)
        self._published = PublishedIndex(home)
        self._copies = LocalCache(home, self.root, self._published)
        self._studies = RemoteStudies(home, self.root)
        self._held: dict[str, Lease] = {}
        self._savers: dict[str, CheckpointUploader] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # On another host the local folder is elsewhere.
        return remote_store, (self.home.url, *self._settings)

    @property
    def leases(self) -> LeaseManager:
        return self._leases

    @property
    def place(self) -> str:
        return self.home.place()

    def exists(self) -> bool:
        return any(self.home.list(folder) for folder in ("published", "studies", "work"))

    def try_out(self) -> None:
        key = f"stop/tried-{uuid.uuid4().hex}"
        self.home.write(key, b"calm-bench doctor")
        try:
            if key not in self.home.list("stop") or self.home.read(key) != b"calm-bench doctor":
                raise StoreUnreachable(f"{self.place} does not show what was just written: leases need that it does")
        finally:
            self.home.delete([key])

    def is_done(self, stage: Stage) -> bool:
        return self._published.has(stage.name)

    def is_begun(self, stage: Stage) -> bool:
        return super().is_begun(stage) or saved_work(self.home, stage.name) is not None

    def is_here(self, stage: Stage) -> bool:
        return self._copies.is_whole(stage.kind, stage.identity)

    def result(self, stage: Stage) -> dict[str, Any]:
        result: dict[str, Any] = self._published.record(stage.name).about["result"]
        return result

    def fetch(self, stage: Stage) -> Path:
        """
        Raises:
            FileNotFoundError: the stage is not finished.
            DamagedStage: what is kept is not what was published.
        """
        return self._copies.fetch(stage.kind, stage.identity)

    def summary_folder(self, stage: Stage) -> Path:
        if self.is_here(stage):
            return self.folder(stage)
        self.bring_summaries([stage])
        return self.folder(stage)

    def refresh(self, stage: Stage) -> None:
        if self._published.look(stage.name):
            self._copies.bring([stage.name])

    def bring_summaries(self, stages: Iterable[Stage]) -> None:
        self._copies.bring({stage.name for stage in stages if self._published.has(stage.name)})

    def bring_studies(self) -> None:
        for folder in self._studies.folders(complete=True):
            self._copies.bring({name for name in stages_of(folder) if self._published.has(name)})

    def address(self, stage: Stage) -> str:
        found = self._published.record(stage.name)
        upload = found.files[RECORD].object.partition("/")[0]
        return self.home.place(f"{prefix_of(stage.kind, stage.identity)}/{upload}")

    def find_folder(self, kind: str, identity: str) -> Path | None:
        if not (is_plain(kind) and is_plain(identity) and self._published.has(f"{kind}-{identity}")):
            return None
        return self._copies.fetch(kind, identity)

    def record(self, ref: StageRef) -> StageRecord | None:
        return self._published.description(ref.name)

    def records(self, kind: str) -> Iterator[StageRecord]:
        return self._published.descriptions(kind)

    def claim(self, stage: Stage) -> Lease | None:
        lease = self._leases.acquire(stage.name)
        if lease is not None:
            lease.before_release(lambda: self._put_down(stage))
            try:
                self._take_up(stage)
            except BaseException:
                lease.release()
                raise
        return lease

    def open_work(self, stage: Stage, device: str) -> Path:
        adopt(self.home, stage.name, self.work_folder(stage), self.root / "incoming", self._note(stage))
        folder = super().open_work(stage, device)
        self._savers[stage.name] = CheckpointUploader(
            self.home, stage.name, folder, self.root / "outgoing", self._note(stage), self._settings[2]
        )
        return folder

    def damage(self, stage: Stage) -> list[str]:
        if not self._published.has(stage.name):
            return ["it is not in the store"]
        if self.is_here(stage):
            if not find_damage(self.folder(stage)):
                return []
            # Only the copy may be damaged.
            shutil.rmtree(self.folder(stage))
        try:
            self.fetch(stage)
        except DamagedStage as error:
            return error.damage
        except FileNotFoundError:
            self._published.forget(stage.name)
            return ["it is not in the store"]
        return []

    def quarantine(self, stage: Stage) -> str | None:
        lease = self._leases.acquire(stage.name)
        if lease is None:
            return None
        with lease:
            try:
                content = self.home.read(PublishedIndex.key(stage.name))
            except FileNotFoundError:
                self._published.forget(stage.name)
                return None
            key = f"damaged/{stage.name}-{time.time_ns():x}.json"
            self.home.write(key, content)
            self.home.delete([PublishedIndex.key(stage.name)])
            self._published.forget(stage.name)
            shutil.rmtree(self.folder(stage), ignore_errors=True)
            return self.home.place(key)

    def verify(self, kind: str, identity: str) -> list[str] | None:
        try:
            found = self._published.record(f"{kind}-{identity}")
        except FileNotFoundError:
            return ["its record cannot be read"]
        return manifest.check(self.home, prefix_of(kind, identity), found)

    def finished(self) -> Iterator[StageFiles]:
        return remote_contents.finished(self.home, self._published)

    def begun(self) -> Iterator[StageFiles]:
        return remote_contents.begun(self.home, self._leases)

    def left_behind(self) -> Iterator[PartialStage]:
        yield from remote_contents.left_behind(self.home, self._published, self._leases)
        yield from remote_contents.left_in_cache(self.root, self._published)
        yield from left_behind_in(self.root)

    def discard(self, place: Path | str) -> None:
        if isinstance(place, Path):
            super().discard(place)
            return
        key = self.home.key_of(place)
        for record in remote_contents.records_of(key):
            # First, so that nobody sees a stage of which half is gone.
            self.home.delete([record])
            self._published.forget(PurePosixPath(record).stem)
        self.home.delete(list(self.home.list(key)) or [key])
        if (copy := self.root / key).is_dir():
            shutil.rmtree(copy)

    def sweep_leases(self) -> None:
        self._leases.sweep()

    @contextmanager
    def open_study(self, name: str, exclusive: bool = True) -> Iterator[Path]:
        lease = self._leases.acquire(f"study-{name}") if exclusive else None
        if exclusive and lease is None:
            holder = self._leases.holder(f"study-{name}") or "another driver"
            raise StudyBusy(
                f"{holder} runs this study in {self.place}, and an object store cannot let two drivers share a "
                "journal: wait for it, keep the trials in a database (execution.optuna_storage), or use a shared "
                "folder as the store. Different studies may share all their stages."
            )
        try:
            if lease is not None:
                self._held[name] = lease
            self._studies.fetch(name)
            with self._studies.driving(name):
                sender = Sender(self.home, self.root / "studies" / name, self.progress_every_s)
                try:
                    yield self.root / "studies" / name
                finally:
                    sender.leave()
                    self.save_study(name)
        finally:
            self._held.pop(name, None)
            if lease is not None:
                lease.release()

    def save_study(self, name: str) -> None:
        if name in self._held and self._held[name].lost:
            raise StudyBusy(
                f"this driver was cut off from {self.place} for so long that another one took the study over: "
                "nothing is lost, the other goes on"
            )
        self._studies.save(name)

    @property
    def progress(self) -> RemoteProgress:
        """For one who watches studies that run elsewhere."""
        return RemoteProgress(self.home, self.root, self._leases, self._studies)

    def study_folders(self) -> list[Path]:
        return self._studies.folders()

    def flag(self, name: str) -> RemoteFlag:
        return RemoteFlag(self.home, name)

    def raise_flag(self, name: str) -> None:
        self.flag(name).touch()

    def lower_flags(self, beginning: str) -> None:
        self.home.delete(key for key in self.home.list("stop") if key.startswith(f"stop/{beginning}"))

    def _take_up(self, stage: Stage) -> None:
        if self._published.look(stage.name):
            return
        if self.is_here(stage):
            # Kept by this host while the home lost it.
            if find_damage(self.folder(stage)):
                shutil.rmtree(self.folder(stage))
            else:
                self._publish(stage, self.folder(stage))
                return
        work = self.work_folder(stage)
        if (work / RECORD).exists() and find_changes(work) == []:
            self._place(stage)

    def _place(self, stage: Stage) -> None:
        self._stop_saving(stage, save=False)
        # Whoever published it while this process was taken for dead made the same: theirs stands.
        if not self._published.look(stage.name):
            self._publish(stage, self.work_folder(stage))
        super()._place(stage)
        discard_saved(self.home, stage.name, self._note(stage))

    def _publish(self, stage: Stage, folder: Path) -> None:
        about = {"description": stage.description(), "result": read_result(folder)}
        key, prefix = PublishedIndex.key(stage.name), prefix_of(stage.kind, stage.identity)
        self._published.add(stage.name, manifest.send(self.home, key, prefix, folder, recorded_names(folder), about))

    def _put_down(self, stage: Stage) -> None:
        # What could not be saved is still on this host.
        with suppress(OSError):
            self._stop_saving(stage, save=True)

    def _stop_saving(self, stage: Stage, save: bool) -> None:
        saver = self._savers.pop(stage.name, None)
        if saver is not None:
            saver.close(save)

    def _note(self, stage: Stage) -> Path:
        return self.root / "saved" / stage.name


def remote_store(
    url: str, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S, save_every_s: float = SAVE_EVERY_S
) -> Store:
    """The store at the address ``url``, worked on in this machine's cache."""
    return RemoteStore(ObjectStore(url), cache_folder(url), expiry_s, heartbeat_s, save_every_s)


def cache_folder(url: str) -> Path:
    """Where this machine works on the store at ``url``."""
    own = os.environ.get(CACHE)
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "calm-bench"
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return Path(own or users).expanduser().absolute() / f"store-{digest}"
