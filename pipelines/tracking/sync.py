"""The mirror made from the files alone: in an empty tracking store all of it, in another one what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.common.redact import masked
from pipelines.store.store import Store
from pipelines.tracking.address import tracking_uri
from pipelines.tracking.client import TrackingError, connect, experiment_id, writer_lease
from pipelines.tracking.record import write_record
from pipelines.tracking.runs import StudyRuns
from pipelines.tracking.stored import published_files, read_study
from pipelines.tracking.system_metrics import SystemLog


@dataclass(frozen=True)
class Synced:
    """One study and what became of it."""

    folder: Path
    address: str = ""
    """Of MLflow, without credentials."""
    trials: int = 0
    parts: int = 0
    """Parts that MLflow lacked; 0 where it had all of it."""
    problem: str | None = None
    """Why the study is not all in MLflow."""
    unregistered: str | None = None
    """Why its models are not in MLflow's registry, where MLflow does not take them."""


def sync_study(store: Store, folder: Path, uri: str | None = None, experiment: str | None = None) -> Synced:
    """Complete the mirror of the study in ``folder``.

    Runs and models have ids of their own in each tracking store, and files the time at which they arrived; all else
    follows from the store. Steps that were trained twice, before and after a crash, have the times and rates of their
    first training in a mirror that looked on, and of their second in one made afterwards.

    Args:
        uri: of MLflow, other than the study's own; may hold credentials.
        experiment: other than the study's own.

    Raises:
        TrackingError: MLflow cannot be written.
    """
    try:
        stored = read_study(store.root, folder)
    except TrackingError as error:
        return Synced(folder, problem=str(error))
    tracking = stored.study.tracking
    if uri is None and tracking.uri is not None and masked(tracking.uri) != tracking.uri:
        return Synced(folder, problem=f"the store does not keep the password of {masked(tracking.uri)}: give --uri")
    uri = uri or tracking_uri(tracking, store.root)
    leases, name = writer_lease(store, uri, stored.identity)
    lease = leases.acquire(name)
    if lease is None:
        holder = leases.holder(name)
        return Synced(folder, masked(uri), problem=f"{holder or 'another process'} is writing it into MLflow")
    parts = 0

    def count() -> None:
        nonlocal parts
        parts += 1

    with lease:
        try:
            client = connect(uri)
            place = experiment_id(client, experiment or tracking.experiment, uri, store.root / "mlartifacts")
            runs = StudyRuns(client, place, stored.study, stored.identity, stored.start, count)
            for trial in stored.trials:
                runs.push_trial(trial)
            runs.push_system(SystemLog(folder).new())
            if stored.leaderboard is not None:
                runs.push_leaderboard(stored.leaderboard, published_files(folder), stored.trials)
            runs.end(stored.status, stored.trials)
            write_record(folder, masked(uri), runs)
        except Exception as error:  # MLflow, its database driver or the network may raise anything
            reason = masked(f"{type(error).__name__}: {error}")[:500]
            raise TrackingError(
                f"MLflow at {masked(uri)} could not be written: {reason}. The same command goes on where it stopped"
            ) from None
    return Synced(folder, masked(uri), len(stored.trials), parts, unregistered=runs.unregistered)
