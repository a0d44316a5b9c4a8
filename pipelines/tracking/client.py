"""A quiet MLflow client that gives up soon, and what calm-bench calls things in MLflow."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from calm_bench.fingerprint import identity as fingerprint
from calm_bench.registry import did_you_mean
from pipelines.common.redact import redact
from pipelines.results.entry import Entry
from pipelines.search.postgresql import advisory_lock, is_postgresql, one_connection
from pipelines.tracking.address import TrackingError, check_presence, is_server, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipelines.store.lease import LeaseManager
    from pipelines.store.store import Store

ROLE = "calm_bench.role"
"""Tag: ``study`` on the parent run, ``trial`` on its children."""
FORMER = "former trial"
"""Its value where the trial has another result by now; also on the version of its model."""
STUDY_NAME = "calm_bench.study"
STUDY_IDENTITY = "calm_bench.study_identity"
TRIAL_KEY = "calm_bench.trial"
"""Tag: what makes a trial's run unique within its study, ``number/identity of its last stage``."""
ENTRY = "calm_bench.entry"
"""Tag: the leaderboard row as JSON; what is too long for one tag goes on in ``calm_bench.entry.2`` and so on."""

_ENTRY_PART = 4000
"""Characters of a row in one tag; MLflow has taken 5000 and 8000."""
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

    client = MlflowClient(tracking_uri=uri)
    path = sqlite_path(uri)
    if path is not None:
        from filelock import FileLock

        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that create the tables of one file at once would fail each other.
        with FileLock(f"{path}.lock"):
            client.search_experiments(max_results=1)
    elif is_postgresql(uri):
        with one_connection(uri) as engine, advisory_lock(engine, "mlflow tables"):
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
        TrackingError: the store was moved with the database in it, which would write files into the old place.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        _refuse_moved(str(found.artifact_location), uri, artifacts)
        return str(found.experiment_id)
    decides = is_server(uri) or urlsplit(uri).scheme == "databricks"
    location = None if decides else artifacts.resolve().as_uri()
    return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))


def _refuse_moved(location: str, uri: str, artifacts: Path) -> None:
    """MLflow keeps the whole path of an experiment's files, and has no way to change it."""
    path, parts = sqlite_path(uri), urlsplit(location)
    is_own = path is not None and path.parent.resolve() == artifacts.parent.resolve()
    kept = Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
    if is_own and kept is not None and not kept.is_relative_to(artifacts.parent.resolve()):
        raise TrackingError(
            f"the store was moved here from {kept.parent}, and the MLflow database in it would write its files there: "
            f"calm-bench mlflow sync --anew --store {artifacts.parent} makes it again from the store's files (the old "
            "one is kept beside it)"
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


def entry_tags(entry: Entry) -> dict[str, str]:
    """The row as tags of its run."""
    text = entry.model_dump_json()
    parts = [text[start : start + _ENTRY_PART] for start in range(0, len(text), _ENTRY_PART)]
    return {ENTRY if number == 1 else f"{ENTRY}.{number}": part for number, part in enumerate(parts, start=1)}


def entry_in(tags: Mapping[str, str]) -> Entry | None:
    """The row in a run's tags; None where it has none.

    Raises:
        ValueError: it is not a row of this version.
    """
    if ENTRY not in tags:
        return None
    parts = [tags[ENTRY]]
    while (following := f"{ENTRY}.{len(parts) + 1}") in tags:
        parts.append(tags[following])
    # Text behind the first whole value was left by a longer row.
    row, _ = json.JSONDecoder().raw_decode("".join(parts))
    return Entry.model_validate(row)


def entries_from_mlflow(uri: str, experiments: Sequence[str] | str, study: str | None = None) -> list[Entry]:
    """The leaderboard rows in one or several experiments, of all studies or of the one called ``study``, oldest first.

    Raises:
        TrackingError: MLflow cannot be reached, has no such experiment, or holds a row that cannot be read.
    """
    from mlflow.exceptions import MlflowException

    address = redact(uri)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise TrackingError(f"there is no MLflow database at {address}: run a study first, or check the address")
    tags = {"role": "trial"} | ({} if study is None else {"study": study})
    names = [experiments] if isinstance(experiments, str) else list(dict.fromkeys(experiments))
    try:
        client = connect(uri)
        ids = [_experiment_called(client, name, address) for name in names]
        rows = [(run.info.start_time, run.info.run_id, run.data.tags) for run in runs(client, ids, **tags)]
    except TrackingError as error:
        raise TrackingError(str(error) if address in str(error) else f"MLflow at {address}: {error}") from None
    except MlflowException as error:
        raise TrackingError(f"MLflow at {address} cannot be read: {redact(str(error))}") from None
    dated: list[tuple[int, Entry]] = []
    for start, run_id, found in rows:
        try:
            entry = entry_in(found)
        except ValueError as error:
            raise TrackingError(
                f"the tag {ENTRY} of run {run_id} at {address} is not a row of this version of calm-bench: {error}"
            ) from error
        if entry is not None:
            dated.append((start, entry))
    # Trials whose first own stages began in the same millisecond: MLflow would order them by their random names.
    return [entry for _, entry in sorted(dated, key=lambda one: (one[0], one[1].study, one[1].trial))]


def _experiment_called(client: MlflowClient, name: str, address: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        known = [one.name for one in client.search_experiments(max_results=50)]
        raise TrackingError(f"MLflow at {address} has no experiment {name!r}{did_you_mean(name, known)}")
    return str(found.experiment_id)


def _quoted(value: str) -> str:
    if "'" in value:
        raise ValueError(f"{value!r} cannot be searched for in MLflow: it has a quote")
    return value
