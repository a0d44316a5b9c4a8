"""MLflow kept up to date while a study runs: by a thread that training neither waits for nor dies of."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.kept_folders import is_gone
from pipelines.common.redact import redact
from pipelines.common.shell_commands import lost_addresses, shell_command
from pipelines.execution.events import Event, StageDropped, StageFailed, StageFinished, StageStarted
from pipelines.store.store import Store
from pipelines.study.config import Tracking
from pipelines.tracking.address import TrackingError, check_presence, tracking_uri
from pipelines.tracking.registry import without_registry
from pipelines.tracking.sync import StudySync
from pipelines.tracking.system_metrics import SystemLog, SystemSampler

if TYPE_CHECKING:
    from pipelines.study.stage import Stage

SYNC = "calm-bench mlflow sync"
"""A way out; who refuses an MLflow names its own."""
LAST_TRY_S = 15.0
"""How long the end of a study waits for a tracking server that was away the last time it was asked."""
SYNC_SHARE = 20
"""Time between two syncs, in the time that the last one took."""
LONGEST_PAUSE_S = 30.0
"""After a sync that took long, as the first does, which may make MLflow's tables."""


class TrackingListener:
    """Has the files of a running study sent to MLflow (:class:`pipelines.execution.events.Listener`).

    Events only say that the files have grown, so nothing piles up while MLflow is away. What could not be sent is tried
    again every ``retry_interval_s`` seconds and at the end, or as soon as there is a server again, where there was
    none; if it still fails, the same command or ``calm-bench mlflow sync`` sends what is missing, and only that.

    Of several drivers of one study one is the writer; another takes over when it ends.

    Args:
        folder: of the study in ``store``.
        notify: told in a sentence what goes wrong, once for each kind of it; by default stderr.
        interval_s: shortest time between two syncs.
        sample_interval_s: between two samples of how busy the machine is.
    """

    def __init__(
        self,
        tracking: Tracking,
        store: Store,
        folder: Path,
        notify: Callable[[str], None] | None = None,
        *,
        interval_s: float = 2.0,
        retry_interval_s: float = 30.0,
        sample_interval_s: float = 10.0,
    ) -> None:
        self._store = store
        self._uri = tracking_uri(tracking, store.root)
        self._sync = StudySync(store, folder, self._uri, tracking.experiment)
        # What the store keeps of the study has lost the password of the address.
        address = ["--uri", tracking.uri] if lost_addresses({"tracking": {"uri": tracking.uri}}) else []
        self._way_out = shell_command([*SYNC.split(), folder.name, "--store", store.uri, *map(str, address)])
        self._notify = notify or _to_stderr
        self._interval_s = interval_s
        self._retry_interval_s = retry_interval_s
        self._log = SystemLog(folder)
        self._sampler = SystemSampler(self._log, sample_interval_s, self._warn)
        self._running: set[Stage] = set()
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()
        self._closing = False
        self._has_worked = False
        self._all_sent = True
        # Below: touched by the thread only.
        self._warned: set[str] = set()
        self._is_away = False
        self._has_no_server = False

    @property
    def address(self) -> str:
        """Where MLflow is, without credentials."""
        return self._sync.address

    @property
    def page(self) -> str | None:
        """The leaderboard in MLflow's pages; None where it is a database, or nothing was sent."""
        return self._sync.page

    def handle(self, event: Event) -> None:
        """Take note that the files have grown; returns at once."""
        if isinstance(event, StageStarted):
            self._running.add(event.stage)
            self._has_worked = True
        elif isinstance(event, StageFinished | StageFailed | StageDropped):
            self._running.discard(event.stage)
        self._sampler.is_wanted = bool(self._running)
        self._changed.set()
        if self._thread is None:
            # A daemon, so that a server which does not answer cannot keep the process alive.
            self._thread = threading.Thread(target=self._work, name="mlflow-sync", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float = 60.0) -> bool:
        """Send what is left; whether all has arrived.

        Args:
            timeout_s: how long to wait for MLflow to take one more part; less where it was away before.
        """
        if self._thread is None:
            return True
        self._sampler.stop()
        self._closing = True
        self._changed.set()
        patience = timeout_s if self._all_sent else min(timeout_s, LAST_TRY_S)
        parts, deadline = self._sync.parts, time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(0.2)
            if parts != self._sync.parts:
                parts, deadline = self._sync.parts, time.monotonic() + timeout_s
        if self._thread.is_alive():
            self._warn("it takes too long to answer")
            self._release()
            return False
        return self._all_sent

    def _work(self) -> None:
        try:
            self._log.begin(time.time_ns() // 1_000_000)
            self._sampler.start()
        except OSError as error:  # a full disk: the study has worse to say of it
            self._warn(f"{type(error).__name__}: {error}")
        while True:
            self._changed.wait()
            self._changed.clear()
            if is_gone(self._store.root):
                # The study itself ends with it, and says so.
                return
            closing = self._closing
            began = time.monotonic()
            self._all_sent = self._try_to_sync(closing)
            if closing:
                self._release()
                return
            if not self._all_sent:
                # Nobody may be training when the server comes back.
                self._changed.set()
            # To ask for a connection costs nothing, unlike to send once more what is refused.
            soon = self._all_sent or self._has_no_server
            interval = self._interval_s if soon else self._retry_interval_s
            self._pause(max(interval, min(LONGEST_PAUSE_S, SYNC_SHARE * (time.monotonic() - began))))

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._closing and time.monotonic() < deadline:
            time.sleep(min(0.1, seconds))

    def _try_to_sync(self, closing: bool) -> bool:
        """Send what is new; whether all of it was taken, by this driver or by another one that is the writer."""
        refused: list[str] = []
        try:
            if not self._sync.is_writer():
                # It may end; then what is new is this one's to send.
                self._changed.set()
                return True
            self._sync.sync("at rest" if closing else "at work" if self._has_worked else "begun", refused.append)
        except Exception as error:  # MLflow, its database driver or the network may raise anything
            if is_gone(self._store.root):
                return False
            self._has_no_server = not self._has_server()
            self._say_away(error, closing)
            return False
        self._has_no_server = False
        if self._is_away:
            self._is_away = False
            self._notify(f"MLflow at {self.address} answers again and has what it missed")
        for reason in refused:
            self._warn(reason)
        if self._sync.unregistered is not None and "registry" not in self._warned:
            self._warned.add("registry")
            self._notify(f"MLflow at {self.address} {without_registry(self._sync.unregistered)}")
        return not refused

    def _has_server(self) -> bool:
        """Whether somebody accepts connections, or MLflow is a database."""
        try:
            check_presence(self._uri)
        except TrackingError:
            return False
        return True

    def _release(self) -> None:
        try:
            self._sync.release()
        except Exception as error:  # the store, too, may be away
            self._warn(f"{type(error).__name__}: {error}")

    def _say_away(self, error: Exception, closing: bool) -> None:
        """Tell of each absence once, and of its not having ended by the end."""
        reason = redact(f"{type(error).__name__}: {error}")[:500]
        if not self._is_away:
            self._is_away = True
            self._notify(
                f"MLflow at {self.address} could not be written: {reason}. The study goes on; its results are in the "
                "store, and what is missing is sent when MLflow answers again."
            )
        if closing and SYNC not in reason:
            self._notify(
                f"MLflow at {self.address} does not have all of this study: {self._way_out} sends what is missing."
            )

    def _warn(self, reason: str) -> None:
        """Say it once for each reason's kind, with the way out."""
        kind = reason.split(":")[0]
        if kind in self._warned or is_gone(self._store.root):
            return
        self._warned.add(kind)
        self._notify(
            f"MLflow at {self.address} could not be written: {redact(reason)[:500]}. The study goes on; its results "
            f"are in the store, and {self._way_out} sends what is missing."
        )


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)
