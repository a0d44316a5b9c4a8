"""MLflow's and Optuna's pages for one store, started and stopped together."""

from __future__ import annotations

import shlex
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from calm_bench.kept_folders import check_kept
from calm_bench.overrides import ConfigurationError
from pipelines.common.redact import redact
from pipelines.search.trial_storage import VARIABLE
from pipelines.store.mlflow_record import MLFLOW_FILE, MlflowRecord
from pipelines.store.store import Store
from pipelines.store.study_names import how_to_begin
from pipelines.store.trial_record import load_trials
from pipelines.study.config import Tracking
from pipelines.tracking.address import TrackingError, check_presence, is_server, sqlite_path, tracking_uri
from pipelines.tracking.servers import LOOPBACK, MlflowServer, free_port
from pipelines.tracking.study_files import begun_studies

if TYPE_CHECKING:
    from pipelines.tracking.optuna_pages import OptunaPages

MLFLOW_PORT = 5000
"""Where reports look for the pages of a store whose runs are in a file."""
DASHBOARD_PORT = 8080


class UiServers:
    """A context manager: whatever was started is stopped at its end, also by SIGTERM.

    Raises:
        ConfigurationError: there is nothing to show, or the port is taken.
        TrackingError: MLflow cannot be started or reached.
        PostgresqlError: a package that a database of trials takes is not installed.
    """

    def __init__(self, store: Store, port: int | None = None, dashboard: bool = True) -> None:
        self._store = store
        self._uri = tracking_uri(Tracking(), store.root)
        self._port = port
        self._wants_dashboard = dashboard
        self._server: MlflowServer | None = None
        self.dashboard: OptunaPages | None = None
        self.without_dashboard: str | None = None
        """Why Optuna's pages are not shown, though they were asked for."""
        self.mlflow = ""
        """Address of MLflow's pages."""

    def start(self, folder: Path) -> None:
        """Start both, and return when both answer.

        Args:
            folder: for what MLflow's server says.
        """
        if not self._store.studies.folders():
            where = self._store.uri
            raise ConfigurationError(f"no study has run in the store {where}: {how_to_begin(where)}")
        if self._wants_dashboard:
            from pipelines.tracking.optuna_pages import MissingDashboard, OptunaPages

            try:
                self.dashboard = OptunaPages(self._store.root, LOOPBACK, free_port(DASHBOARD_PORT))
            except MissingDashboard as error:
                self.without_dashboard = str(error)
        if is_server(self._uri):
            # Somebody else's server has pages of its own.
            check_presence(self._uri)
            self.mlflow = redact(self._uri)
            return
        path = sqlite_path(self._uri)
        if path is not None and not path.exists():
            raise ConfigurationError(
                f"there is no MLflow database {path}: calm-bench mlflow sync --store {shlex.quote(self._store.uri)} "
                "makes it from the files"
            )
        port = free_port(self._port or MLFLOW_PORT)
        if self._port is not None and port != self._port:
            raise ConfigurationError(f"port {self._port} is taken: give another --port, or none")
        self._server = MlflowServer(self._uri, self._store.root / "mlartifacts", port, folder / "mlflow.log")
        self._server.wait()
        self.mlflow = self._server.address

    def wait(self) -> None:
        """Return at Ctrl-C or SIGTERM.

        Raises:
            TrackingError: MLflow's server ended by itself.
            FolderGone: somebody moved or removed the store.
        """
        try:
            while self._server is None or self._server.is_running():
                check_kept(self._store.root)
                time.sleep(0.5)
        except KeyboardInterrupt:
            return
        raise TrackingError("MLflow's server has ended; start it again with the same command")

    def boards(self) -> list[str]:
        """Ids of MLflow's experiments that the store's studies are in, that of the study written last first."""
        found: list[str] = []
        known = [folder / MLFLOW_FILE for folder in begun_studies(self._store) if (folder / MLFLOW_FILE).is_file()]
        for path in sorted(known, key=lambda path: path.stat().st_mtime, reverse=True):
            record = MlflowRecord.load(path.parent)
            if record is not None and self._is_here(record) and record.experiment_id not in found:
                found.append(record.experiment_id)
        return found

    def run_page(self, record: MlflowRecord | None) -> str | None:
        """MLflow's page of a study; None where its runs are elsewhere."""
        if record is None or not self._is_here(record):
            return None
        return f"{self.mlflow}/#/experiments/{record.experiment_id}/runs/{record.parent_run_id}"

    def _is_here(self, record: MlflowRecord) -> bool:
        return record.address == redact(self._uri)

    def __enter__(self) -> Self:
        self._terminate = signal.getsignal(signal.SIGTERM)
        if self._terminate == signal.SIG_DFL:
            # The command has a handler of its own, which knows the exit code.
            signal.signal(signal.SIGTERM, _as_interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave the server behind.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if self.dashboard is not None:
                self.dashboard.stop()
            if self._server is not None:
                self._server.stop()
        finally:
            signal.signal(signal.SIGINT, interrupt)
            signal.signal(signal.SIGTERM, self._terminate)


def study_lines(store: Store, servers: UiServers) -> Iterator[str]:
    """A line a study: its trials and its pages."""
    folders = begun_studies(store)
    width = max((len(folder.name) for folder in folders), default=0)
    for folder in folders:
        states = Counter(trial.state for trial in load_trials(folder))
        told = ", ".join(f"{count} {state}" for state, count in states.items()) or "no trial yet"
        pages = [
            servers.run_page(MlflowRecord.load(folder)),
            servers.dashboard.page(folder.name) if servers.dashboard is not None else None,
        ]
        known = "  ".join(page for page in pages if page is not None)
        yield f"  {folder.name:{width}}  {told}  {known}".rstrip()
    if servers.dashboard is None:
        return
    from pipelines.tracking.trial_sources import hidden_databases

    for address in hidden_databases(store.root):
        yield f"  more trials are in {address}: {VARIABLE} with its password shows them here"


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
