"""A quiet MLflow client that gives up soon, and what calm-bench calls things in MLflow."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from pipelines.leaderboard.entry import Entry
from pipelines.mirror.address import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROLE = "calm_bench.role"
"""Tag: ``study`` on the parent run, ``trial`` on its children."""
STUDY_NAME = "calm_bench.study"
STUDY_IDENTITY = "calm_bench.study_identity"
TRIAL_KEY = "calm_bench.trial"
"""Tag: what makes a trial's run unique within its study, ``number/identity of its last stage``."""
ENTRY = "calm_bench.entry"
"""Tag: the leaderboard row as JSON."""

_DEFAULTS = {
    # MLflow waits for minutes by default, in each call, for a server that is away.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow sets its loggers up when it is imported; the level set below would be overwritten.
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


class TrackingError(RuntimeError):
    """MLflow cannot be read; says where and what to do."""


def connect(uri: str) -> MlflowClient:
    """A client for ``uri``, whose sqlite file is created or brought up to date first.

    Environment variables that the user has set are left alone. Nothing global in MLflow is changed.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    path = sqlite_path(uri)
    if path is not None:
        from filelock import FileLock

        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that create the tables of one file at once would fail each other.
        with FileLock(f"{path}.lock"):
            client.search_experiments(max_results=1)
    return client


def sqlite_path(uri: str) -> Path | None:
    """The file behind a ``sqlite:///`` address; None for other addresses and for a database in memory."""
    parts = urlsplit(uri)
    if not parts.scheme.startswith("sqlite") or parts.path in ("", "/", "/:memory:"):
        return None
    return Path(parts.path[1:])


def experiment_id(client: MlflowClient, name: str, uri: str, artifacts: Path) -> str:
    """The experiment called ``name``, created if need be.

    A server decides for itself where artifacts go; with a database they go to the folder ``artifacts``, where MLflow
    would otherwise use the working directory.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    is_server = urlsplit(uri).scheme in ("http", "https", "databricks")
    return str(client.create_experiment(name, artifact_location=None if is_server else artifacts.resolve().as_uri()))


def runs(client: MlflowClient, experiment_ids: list[str], **tags: str) -> Iterator[Run]:
    """All runs with these ``tags`` (named without ``calm_bench.``) that are not deleted, oldest first."""
    conditions = " and ".join(f"tags.`calm_bench.{name}` = '{_quoted(value)}'" for name, value in tags.items())
    token: str | None = None
    while True:
        page = client.search_runs(
            experiment_ids, conditions, order_by=["attributes.start_time ASC"], max_results=1000, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def entries_from_mlflow(uri: str, experiment: str, study: str | None = None) -> list[Entry]:
    """The leaderboard rows in an experiment, of all studies or of the one called ``study``.

    Raises:
        TrackingError: MLflow cannot be reached, has no such experiment, or holds a row that cannot be read.
    """
    from mlflow.exceptions import MlflowException

    address = masked(uri)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise TrackingError(f"there is no MLflow database at {address}: run a study first, or check the address")
    try:
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = ", ".join(repr(one.name) for one in client.search_experiments(max_results=20))
            raise TrackingError(f"MLflow at {address} has no experiment {experiment!r}; it has {names or 'none'}")
        tags = {"role": "trial"} | ({} if study is None else {"study": study})
        rows = [
            (run.info.run_id, run.data.tags[ENTRY])
            for run in runs(client, [found.experiment_id], **tags)
            if ENTRY in run.data.tags
        ]
    except MlflowException as error:
        raise TrackingError(f"MLflow at {address} cannot be read: {masked(str(error))}") from None
    entries = []
    for run_id, text in rows:
        try:
            entries.append(Entry.model_validate_json(text))
        except ValidationError as error:
            raise TrackingError(
                f"the tag {ENTRY} of run {run_id} at {address} is not a row of this version of calm-bench: {error}"
            ) from error
    return entries


def _quoted(value: str) -> str:
    if "'" in value:
        raise ValueError(f"{value!r} cannot be searched for in MLflow: it has a quote")
    return value
