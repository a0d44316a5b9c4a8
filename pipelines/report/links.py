"""Where a trial's run is shown in MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pipelines.common.record_file import RecordError
from pipelines.store.mlflow_record import MlflowRecord

LOCAL = "http://127.0.0.1:5000"
"""Where ``calm-bench ui`` serves a store whose runs are in a file."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Links:
    """Addresses in MLflow's own pages; None where a run is not in MLflow or its names are not MLflow's."""

    base: str | None = None
    experiment: str = ""
    parent: str | None = None
    runs: Mapping[str, str] = field(default_factory=dict)

    @property
    def study(self) -> str | None:
        return self._run(self.parent)

    def trial(self, number: int) -> str | None:
        return self._run(self.runs.get(str(number)))

    def _run(self, run: str | None) -> str | None:
        if self.base is None or run is None:
            return None
        return f"{self.base}/#/experiments/{self.experiment}/runs/{run}"


def links_of(folder: Path) -> Links:
    """What tracking left in a study's folder; a credential in the address goes nowhere."""
    try:
        found = MlflowRecord.load(folder)
    except RecordError:
        # A report can do without.
        return Links()
    if found is None or _identifier(found.experiment_id) is None:
        return Links()
    runs = {number: run for number, run in found.runs.items() if _identifier(run)}
    return Links(_base(found.address), found.experiment_id, _identifier(found.parent_run_id), runs)


def _base(address: str | None) -> str:
    """The server's address without user, password and query; that of a local page where MLflow is a file."""
    try:
        parts = urlsplit(str(address))
        host, port = parts.hostname, parts.port
    except ValueError:
        return LOCAL
    if parts.scheme not in ("http", "https") or not host:
        return LOCAL
    host = f"[{host}]" if ":" in host else host
    netloc = host if port is None else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def _identifier(value: str) -> str | None:
    return value if _IDENTIFIER.fullmatch(value) else None
