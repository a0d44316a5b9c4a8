"""MLflow's server for one store, on loopback, as light as it goes, and gone when it is no longer wanted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pipelines.common.redact import redact
from pipelines.execution.environment import SAFE_PATH
from pipelines.tracking.address import TrackingError

LOOPBACK = "127.0.0.1"
START_S = 180.0
"""Longest wait for a server; it has a dozen seconds of imports, on a busy machine many more."""
_STOP_S = 10.0
TIED = Path(__file__).with_name("tied.py")
"""Runs a module as ``python -m`` does."""


def free_port(preferred: int) -> int:
    """``preferred``, or another port of loopback that nothing listens on."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TrackingError("no port is free on loopback")


class MlflowServer:
    """A tracking server with its pages; a context manager that stops it.

    Args:
        database: SQLAlchemy's address of what it shows; reaches it by its environment, where other users of the
            machine cannot read the password.
        artifacts: folder of the files of experiments that are made through it.
        log: file for what it says.

    Raises:
        TrackingError: it ended, or did not answer in time.
    """

    def __init__(self, database: str, artifacts: Path, port: int, log: Path) -> None:
        self.address = f"http://{LOOPBACK}:{port}"
        self._log_path = log
        self._log: IO[bytes] = log.open("wb")
        environment = {
            **os.environ,
            "MLFLOW_BACKEND_STORE_URI": database,
            # Without these it is fifteen processes instead of three.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **SAFE_PATH,
            # It would put the folder in which this was started first by itself.
            "UVICORN_APP_DIR": str(log.parent),
        }
        environment.pop("MLFLOW_TRACKING_URI", None)
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(TIED), "mlflow", "server"),
                *("--workers", "1", "--host", LOOPBACK, "--port", str(port)),
                *("--artifacts-destination", str(artifacts)),
            ],
            env=environment,
            # It ends with this pipe, whatever becomes of this process.
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            # A group of its own: Ctrl-C reaches us alone, and we end all of it.
            start_new_session=True,
        )

    @property
    def process_group(self) -> int:
        """Process group of the server and its workers."""
        return self._process.pid

    def wait(self, timeout_s: float = START_S) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return
            except OSError:
                if self._process.poll() is not None:
                    raise TrackingError(f"MLflow's server ended: {self._last_words()}") from None
                if time.monotonic() > deadline:
                    raise TrackingError(
                        f"MLflow's server does not answer after {timeout_s:g} s: {self._last_words()}"
                    ) from None
                time.sleep(0.2)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End the server and everything that it started."""
        for number, patience in ((signal_number, _STOP_S), (signal.SIGKILL, None)):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _last_words(self) -> str:
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return redact(" | ".join(lines[-3:])) or "it said nothing"
