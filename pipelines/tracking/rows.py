"""Leaderboard rows in MLflow: as tags of their runs, and read back from there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from calm_bench.registry import did_you_mean
from pipelines.common.redact import redact
from pipelines.results.entry import Entry
from pipelines.results.final_rows import ranked
from pipelines.tracking.address import TrackingError, sqlite_path
from pipelines.tracking.client import connect, runs
from pipelines.tracking.tags import ENTRY

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENTRY_PART = 4000
"""Characters of a row in one tag; MLflow has taken 5000 and 8000."""


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
    """The leaderboard rows in one or several experiments, of all studies or of the one called ``study``, oldest first;
    of a study that has final trials these alone.

    Raises:
        TrackingError: MLflow cannot be reached, has no such experiment, or holds a row that cannot be read.
    """
    from mlflow.exceptions import MlflowException

    address = redact(uri)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise TrackingError(
            f"there is no MLflow database at {address}: a study that is run with tracking.uri={shlex.quote(address)} "
            "makes one, or check the address"
        )
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
    return ranked(entry for _, entry in sorted(dated, key=lambda one: (one[0], one[1].study, one[1].trial)))


def _experiment_called(client: MlflowClient, name: str, address: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        known = [one.name for one in client.search_experiments(max_results=50)]
        raise TrackingError(f"MLflow at {address} has no experiment {name!r}{did_you_mean(name, known)}")
    return str(found.experiment_id)
