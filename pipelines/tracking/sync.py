"""One study's files sent to MLflow: in an empty tracking store all of it, in another one what it lacks.

The same for a study that runs, that was interrupted and that has ended, and as often as one likes.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.common.record_file import RecordError
from pipelines.common.redact import redact
from pipelines.store.mlflow_record import MlflowRecord
from pipelines.store.refs import StudyRef
from pipelines.store.store import Store
from pipelines.store.study_record import STUDY_FILE
from pipelines.tracking.address import (
    TrackingError,
    check_presence,
    is_server,
    own_database,
    sqlite_path,
    tracking_uri,
)
from pipelines.tracking.client import connect, experiment_id, writer_lease
from pipelines.tracking.runs import StudyRuns
from pipelines.tracking.study_files import StoredStudy, StudyFiles, published_files
from pipelines.tracking.system_metrics import SystemLog
from pipelines.tracking.views import leaderboard_page, save_views

if TYPE_CHECKING:
    from pipelines.store.holder import Holder
    from pipelines.store.lease import Lease

StudyState = Literal["begun", "at work", "at rest"]
"""``begun``: a driver has taken it up, and may yet find that all of it is done."""


@dataclass(frozen=True)
class Synced:
    """One study and what became of it."""

    folder: Path
    address: str = ""
    """Address of MLflow, without credentials."""
    page: str | None = None
    """Its leaderboard in MLflow, where that is a server."""
    trials: int = 0
    parts: int = 0
    """Parts that MLflow lacked; 0 where it had all of it."""
    problem: str | None = None
    """Why the study is not all in MLflow."""
    trials_sent: int = 0
    """Trials of which MLflow lacked something; other parts are the study's own: its leaderboard, report and samples."""
    unregistered: str | None = None
    """Why its models are not in MLflow's registry, where MLflow does not take them."""


class StudySync:
    """Sends what MLflow lacks of the study in ``folder``. To be used from one thread; looks up once what is there.

    Runs and models have ids of their own in each tracking store, and files the time at which they arrived; all else
    follows from the store. Steps that were trained twice, before and after a crash, have the times and rates of the
    training that was sent first.

    Args:
        uri: of MLflow; may hold credentials.
        experiment: name of MLflow's experiment.
    """

    def __init__(self, store: Store, folder: Path, uri: str, experiment: str) -> None:
        self.address = redact(uri)
        self.parts = 0
        """Parts that have been sent."""
        self.trials_sent: set[int] = set()
        """Numbers of the trials of which something has been sent."""
        self._uri = uri
        self._experiment = experiment
        self._store = store
        self._folder = folder
        self._identity = StudyRef.of(folder).identity
        self._files = StudyFiles(store, folder)
        self._runs: StudyRuns | None = None
        self._leases, self._lease_name = writer_lease(store, uri, self._identity)
        self._lease: Lease | None = None

    @property
    def unregistered(self) -> str | None:
        """Why models are not registered, where MLflow does not take them."""
        return None if self._runs is None else self._runs.unregistered

    @property
    def page(self) -> str | None:
        """The leaderboard in MLflow's pages; None where it is a database, or nothing was sent.

        A driver that is not the writer knows it from what the writer keeps in the study's folder.
        """
        if not is_server(self._uri):
            return None
        if self._runs is not None:
            return leaderboard_page(self._uri, self._runs.experiment_id)
        kept = _kept(self._folder)
        if kept is not None and kept.address == self.address:
            return leaderboard_page(self._uri, kept.experiment_id)
        return None

    def is_writer(self) -> bool:
        """Whether this process may send: of all drivers of a study one does, until it ends."""
        if self._lease is None or self._lease.lost:
            self._lease = self._leases.acquire(self._lease_name)
            self._runs = None
        return self._lease is not None

    @property
    def writer(self) -> Holder | None:
        """The process that sends."""
        return self._leases.holder(self._lease_name)

    def release(self) -> None:
        """Let another process send."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def sync(self, state: StudyState, refused: Callable[[str], None]) -> StoredStudy:
        """Send what MLflow lacks; whoever calls it is the writer.

        Args:
            state: of the study. Where it is at work, it and its open trials are shown as running; where it is at rest,
                they are shown as ended, and the leaderboard is sent.
            refused: told of each trial that MLflow does not take while it takes others, and, of a study at rest, of
                each that cannot be read.

        Raises:
            Exception: what MLflow, its database driver or the network raises; the next call looks first what arrived.
        """
        try:
            return self._sync(state, refused)
        except BaseException:
            self._runs = None
            raise

    def _sync(self, state: StudyState, refused: Callable[[str], None]) -> StoredStudy:
        check_presence(self._uri)
        known = _kept(self._folder)
        if known is not None and known.address == self.address and has_no_folder(self._uri):
            raise TrackingError(told_lost(self._uri, self._store))
        stored = self._files.read()
        if self._runs is None:
            client = connect(self._uri)
            experiment = experiment_id(client, self._experiment, self._uri, self._store.root / "mlartifacts")
            save_views(client, experiment)
            self._runs = StudyRuns(
                client, experiment, stored.study, self._identity, stored.start, self._owner(), self._count
            )
        runs = self._runs
        if state == "at work":
            runs.set_working()
        if state == "at rest":
            # Until then a stage whose files are missing may be one that is made anew.
            for problem in stored.problems:
                refused(problem)
        for trial in stored.trials:
            before = self.parts
            try:
                runs.push_trial(trial, is_running=state == "at work")
            except Exception as error:
                if not runs.is_reachable():
                    raise
                # MLflow is there but does not take this trial; the others must not wait for it.
                runs.forget(trial)
                refused(f"trial {trial.number} ({trial.label}): {type(error).__name__}: {error}")
            if self.parts > before:
                self.trials_sent.add(trial.number)
        self.trials_sent |= runs.set_roles(stored.trials)
        runs.push_system(SystemLog(self._folder).samples())
        if state == "at rest":
            if stored.is_whole:
                runs.retire_others(stored.trials)
            if stored.leaderboard is not None:
                runs.push_leaderboard(stored.leaderboard, published_files(self._folder), stored.trials)
            runs.end(stored.status, stored.trials)
        self._write_record(runs)
        return stored

    def _owner(self) -> str | None:
        """Who owns the study's files."""
        try:
            return (self._folder / STUDY_FILE).owner()
        except (KeyError, OSError, NotImplementedError):
            return None

    def _count(self) -> None:
        self.parts += 1

    def _write_record(self, runs: StudyRuns) -> None:
        numbered = {str(number): run_id for number, run_id in sorted(runs.children.items())}
        record = MlflowRecord(
            address=self.address, experiment_id=runs.experiment_id, parent_run_id=runs.parent_id, runs=numbered
        )
        if _kept(self._folder) != record:
            record.save(self._folder)


def has_no_folder(uri: str) -> bool:
    """Whether ``uri`` names a database in a folder that is not there: to connect would make it."""
    path = sqlite_path(uri)
    return path is not None and not path.parent.is_dir()


def told_lost(uri: str, store: Store) -> str:
    """What to do where a study was in a database whose folder is gone."""
    return (
        f"the folder of {redact(uri)} is gone, in which this study was: where the store was moved with it, calm-bench "
        f"mlflow sync --anew --store {shlex.quote(str(store.root))} makes it again in the store (and tracking.uri= "
        "names the place in what runs from then on)"
    )


def _kept(folder: Path) -> MlflowRecord | None:
    with suppress(RecordError):
        return MlflowRecord.load(folder)
    return None


def set_database_aside(root: Path) -> Path | None:
    """Give the MLflow database of the store at ``root`` another name, and return it; None where there is none."""
    path = root / "mlflow.db"
    if not path.is_file():
        return None
    number = 1
    while (kept := path.with_name(f"mlflow.before-{number}.db")).exists():
        number += 1
    return path.rename(kept)


def sync_study(
    store: Store, folder: Path, uri: str | None = None, experiment: str | None = None, anew: bool = False
) -> Synced:
    """Complete in MLflow the study in ``folder``, which nobody runs.

    Args:
        uri: of MLflow, other than the study's own; may hold credentials.
        experiment: other than the study's own.
        anew: take the store's database in place of one that is lost.

    Raises:
        TrackingError: MLflow cannot be written.
    """
    try:
        tracking = StudyFiles(store, folder).read().study.tracking
    except TrackingError as error:
        return Synced(folder, problem=str(error))
    if uri is None and tracking.uri is not None and "***" in redact(tracking.uri):
        return Synced(folder, problem=f"the store does not keep the password of {redact(tracking.uri)}: give --uri")
    if uri is None:
        uri = tracking_uri(tracking, store.root)
        if tracking.uri is not None and has_no_folder(uri) and _kept(folder) is not None:
            if not anew:
                return Synced(folder, redact(uri), problem=told_lost(uri, store))
            uri = own_database(store.root)
    sync = StudySync(store, folder, uri, experiment or tracking.experiment)
    if not sync.is_writer():
        return Synced(folder, sync.address, problem=f"{sync.writer or 'another process'} is writing it into MLflow")
    refused: list[str] = []
    try:
        stored = sync.sync("at rest", refused.append)
    except Exception as error:  # MLflow, its database driver or the network may raise anything
        reason = redact(f"{type(error).__name__}: {error}")[:500]
        raise TrackingError(
            f"MLflow at {sync.address} could not be written: {reason}. The same command goes on where it stopped"
        ) from None
    finally:
        sync.release()
    problem = redact("; ".join(refused))[:500] if refused else None
    return Synced(
        folder,
        sync.address,
        sync.page,
        trials=len(stored.trials),
        parts=sync.parts,
        problem=problem,
        trials_sent=len(sync.trials_sent),
        unregistered=sync.unregistered,
    )
