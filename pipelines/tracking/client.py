"""A quiet MLflow client that gives up soon, its experiments and the runs in them."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from calm_bench.fingerprint import identity as fingerprint
from calm_bench.kept_folders import make_folder
from pipelines.common.redact import redact
from pipelines.search.postgresql import advisory_lock, is_postgresql, one_connection
from pipelines.tracking.address import TrackingError, check_presence, is_server, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipelines.store.lease import LeaseManager
    from pipelines.store.store import Store

_DEFAULTS = {
    # MLflow waits for minutes by default, in each call, for a server that is away. A request that is repeated blindly,
    # because its answer was late or lost, may create a second run: who repeats has to look first.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow sets its loggers up when it is imported; the level set below would be overwritten.
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


_EXPERIMENT_TAGS = {
    # Opens the experiment with its runs and charts, and not with traces of prompts.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Studies of calm-bench: one run a study, below it one run a trial. "
    "A study's description holds its leaderboard; `brierlm` is the score, `error/...` its standard errors.",
}


def connect(uri: str) -> MlflowClient:
    """A client for ``uri``; tables in a sqlite file or in PostgreSQL are created or brought up to date first.

    Environment variables that the user has set are left alone. Nothing global in MLflow is changed.

    Raises:
        TrackingError: there is no server at ``uri``.
    """
    check_presence(uri)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    if is_postgresql(uri):
        # Asked before MLflow does, which would try again for an hour.
        with one_connection(uri) as engine, advisory_lock(engine, "mlflow tables"):
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
        return client
    path = sqlite_path(uri)
    if path is not None:
        # Before MLflow makes it: in a store that somebody has moved nothing is made again.
        make_folder(path.parent)
    client = MlflowClient(tracking_uri=uri)
    if path is not None:
        from filelock import FileLock

        # Two processes that create the tables of one file at once would fail each other.
        with FileLock(f"{path}.lock"):
            client.search_experiments(max_results=1)
    return client


def writer_lease(store: Store, uri: str, study_identity: str) -> tuple[LeaseManager, str]:
    """Where the one writer of a study into the MLflow at ``uri`` holds its lease, and under which name.

    All drivers of the store meet there, on whichever host; a file in a host's own folder has a writer on each host.
    Each may come to one server as another user.
    """
    path = sqlite_path(uri)
    is_own = path is not None and path.resolve().is_relative_to(store.root.resolve())
    address = redact(uri).replace("://***@", "://")
    return store.folder_leases if is_own else store.leases, f"mlflow-{study_identity}-{fingerprint(address)[:8]}"


def experiment_id(client: MlflowClient, name: str, uri: str, artifacts: Path) -> str:
    """The experiment called ``name``, created if need be.

    A server decides for itself where artifacts go; with a database they go to the folder ``artifacts``, where MLflow
    would otherwise use the working directory.

    Raises:
        TrackingError: somebody deleted it, or the store was moved with the database in it, which would write files
            into the old place.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the experiment {name!r} was deleted in MLflow: restore it "
                f"({_at(uri)}mlflow experiments restore --experiment-id {found.experiment_id}), or name another "
                "(tracking.experiment)"
            )
        _refuse_moved(str(found.artifact_location), uri, artifacts)
        return str(found.experiment_id)
    decides = is_server(uri) or urlsplit(uri).scheme == "databricks"
    location = None if decides else artifacts.resolve().as_uri()
    return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))


def _at(uri: str) -> str:
    """What a command of MLflow begins with that is to reach ``uri``; an address with a password is in the variable."""
    if redact(uri) != uri:
        return "with the whole address in MLFLOW_TRACKING_URI, "
    return f"MLFLOW_TRACKING_URI={shlex.quote(uri)} "


def _refuse_moved(location: str, uri: str, artifacts: Path) -> None:
    """MLflow keeps the whole path of an experiment's files, and has no way to change it."""
    path, parts = sqlite_path(uri), urlsplit(location)
    is_own = path is not None and path.parent.resolve() == artifacts.parent.resolve()
    kept = Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
    if kept is None or not is_own:
        return
    # The old place may be a link that leads here.
    here, there = artifacts.resolve(), kept.resolve()
    # A folder of this name in the store is that of another one, which lay in a folder of this and was moved up.
    is_here = there == here if there.name == here.name else there.is_relative_to(here.parent)
    if not is_here:
        raise TrackingError(
            f"the store was moved here from {kept.parent}, and the MLflow database in it would write its files there: "
            f"calm-bench mlflow sync --anew --store {shlex.quote(str(artifacts.parent))} makes it again from the "
            "store's files (the old one is kept beside it)"
        )


def runs(client: MlflowClient, experiment_ids: list[str], **tags: str) -> Iterator[Run]:
    """All runs with these ``tags`` (named without ``calm_bench.``) that are not deleted, oldest first."""
    conditions = " and ".join(f"tags.`calm_bench.{name}` = '{_quoted(value)}'" for name, value in tags.items())
    token: str | None = None
    while True:
        page = client.search_runs(
            experiment_ids, conditions, order_by=["attributes.start_time ASC"], max_results=200, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _quoted(value: str) -> str:
    if "'" in value:
        raise ValueError(f"{value!r} cannot be searched for in MLflow: it has a quote")
    return value
