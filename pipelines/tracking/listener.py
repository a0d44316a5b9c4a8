"""The mirror of a study in MLflow: one writer in a thread of its own, which training neither waits for nor dies of."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.config import Experiment
from calm_bench.overrides import apply_settings
from pipelines.common.redact import masked
from pipelines.execution.events import (
    Event,
    StageDropped,
    StageFailed,
    StageFinished,
    StageProgress,
    StageStarted,
    StudyFinished,
    TrialFailed,
    TrialFinished,
    TrialStarted,
)
from pipelines.results.entry import entry_from
from pipelines.results.leaderboard import Leaderboard
from pipelines.study.config import Study, Tracking
from pipelines.tracking.address import tracking_uri
from pipelines.tracking.client import TrackingError, check_presence, connect, experiment_id, writer_lease
from pipelines.tracking.record import write_record
from pipelines.tracking.registry import without_registry
from pipelines.tracking.runs import StudyRuns
from pipelines.tracking.system_metrics import SystemLog, SystemMetrics
from pipelines.tracking.times import StagePlace
from pipelines.tracking.trials import Trial, TrialEnd

if TYPE_CHECKING:
    from pipelines.store.lease import Tenure
    from pipelines.store.store import Store
    from pipelines.study.stage import Stage, StageGraph
    from pipelines.study.trial import TrialOutcome

LAST_TRY_S = 15.0
"""How long the end of a study waits for a tracking server that was away the last time it was asked."""


@dataclass(frozen=True)
class _Publish:
    leaderboard: Leaderboard
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Close:
    pass


class MlflowMirror:
    """Listens to a study and repeats it in MLflow (:class:`pipelines.execution.events.Listener`).

    The store's files are the truth: events only say that there is something new in them, so nothing piles up while
    MLflow is away. What could not be sent is tried again every ``retry_interval_s`` seconds and at the end, or as soon
    as there is a server again, where there was none; if it still fails, the same command or ``calm-bench mlflow sync``
    sends what is missing, and only that.

    Of several drivers of one study one is the writer; another takes over when it ends.
    """

    def __init__(
        self,
        tracking: Tracking,
        store: Store,
        study: Study,
        identity: str,
        notify: Callable[[str], None] | None = None,
        *,
        flush_interval_s: float = 2.0,
        retry_interval_s: float = 30.0,
        system_metrics: SystemMetrics | None = None,
    ) -> None:
        self._uri = tracking_uri(tracking, store.root)
        self._experiment = tracking.experiment
        self._store = store
        self._folder = self._store.root / "studies" / f"{study.name}-{identity}"
        self._study = study
        self._identity = identity
        self._notify = notify or _to_stderr
        self._flush_interval_s = flush_interval_s
        self._retry_interval_s = retry_interval_s

        self._queue: queue.SimpleQueue[Event | _Publish | _Close] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lease: Tenure | None = None
        self._warned: set[str] = set()
        self._all_sent = True
        self._parts_sent = 0

        # Below: touched by the writer's thread only.
        self._runs: StudyRuns | None = None
        self._is_away = False
        self._has_no_server = False
        self._all_understood = True
        self._trials: dict[str, Trial] = {}
        self._by_stage: dict[str, list[Trial]] = defaultdict(list)
        self._publish: _Publish | None = None
        self._system = system_metrics or SystemMetrics()
        self._log = SystemLog(self._folder)
        self._running: set[Stage] = set()
        self._has_worked = False
        self._finished: tuple[TrialOutcome, ...] | None = None

    @property
    def address(self) -> str:
        """Where the mirror is, without credentials."""
        return masked(self._uri)

    def handle(self, event: Event) -> None:
        """Take note of ``event``; returns at once."""
        self._put(event)

    def publish(self, leaderboard: Leaderboard, files: Iterable[Path]) -> None:
        """Attach the leaderboard's ``files`` to the study's run, and show it as the run's description."""
        self._put(_Publish(leaderboard, tuple(files)))

    def close(self, timeout_s: float = 60.0) -> bool:
        """Send what is left; whether all has arrived.

        Args:
            timeout_s: how long to wait for MLflow to take one more part; less where it was away before.
        """
        if self._thread is None:
            return True
        self._queue.put(_Close())
        patience = timeout_s if self._all_sent else min(timeout_s, LAST_TRY_S)
        parts, deadline = self._parts_sent, time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(0.2)
            if parts != self._parts_sent:
                parts, deadline = self._parts_sent, time.monotonic() + timeout_s
        if self._thread.is_alive():
            self._warn("it takes too long to answer")
            self._release()
            return False
        return self._all_sent

    def _put(self, item: Event | _Publish) -> None:
        self._queue.put(item)
        if self._thread is None:
            now = time.time_ns() // 1_000_000
            # A daemon, so that a server which does not answer cannot keep the process alive.
            self._thread = threading.Thread(target=self._work, args=(now,), name="mlflow-mirror", daemon=True)
            self._thread.start()

    def _work(self, begun: int) -> None:
        next_flush = 0.0
        self._guarded(self._log.begin, begun)
        while True:
            items = self._wait()
            closing = any(isinstance(item, _Close) for item in items)
            for item in items:
                self._all_understood &= self._guarded(self._note, item)
            self._guarded(self._sample)
            if closing or time.monotonic() >= next_flush:
                self._all_sent = self._try_to_flush(closing) and self._all_understood
                # To ask for a connection costs nothing, unlike to send once more what is refused.
                soon = self._all_sent or self._has_no_server
                next_flush = time.monotonic() + (self._flush_interval_s if soon else self._retry_interval_s)
            if closing:
                self._release()
                return

    def _guarded(self, step: Callable[..., None], *arguments: object) -> bool:
        """Call ``step``; whether it did not raise. Whatever it raises, the study goes on without the mirror."""
        try:
            step(*arguments)
        except Exception as error:
            self._warn(f"{type(error).__name__}: {error}")
            return False
        return True

    def _try_to_flush(self, closing: bool) -> bool:
        """Send what is new; whether all of it was taken, by this driver or by another one that is the writer."""
        try:
            if not self._is_writer():
                return True
            taken = self._flush(closing)
        except Exception as error:  # MLflow, its database driver or the network may raise anything
            # What of the last request has arrived is not known: the next try looks first.
            self._runs = None
            self._has_no_server = not self._has_server()
            self._say_away(error, closing)
            return False
        self._has_no_server = False
        if self._is_away:
            self._is_away = False
            self._notify(f"MLflow at {self.address} answers again and has what it missed")
        return taken

    def _has_server(self) -> bool:
        """Whether somebody accepts connections, or MLflow is a database."""
        try:
            check_presence(self._uri)
        except TrackingError:
            return False
        return True

    def _is_writer(self) -> bool:
        if self._lease is None or self._lease.lost:
            leases, name = writer_lease(self._store, self._uri, self._identity)
            self._lease = leases.acquire(name)
            self._runs = None
        return self._lease is not None

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self._guarded(lease.release)

    def _wait(self) -> list[Event | _Publish | _Close]:
        items: list[Event | _Publish | _Close] = []
        try:
            items.append(self._queue.get(timeout=min(self._flush_interval_s, 1.0)))
            while True:
                items.append(self._queue.get_nowait())
        except queue.Empty:
            return items

    def _note(self, item: Event | _Publish | _Close) -> None:
        if isinstance(item, TrialStarted):
            self._trial(item.number, item.label, item.graph, apply_settings(self._study.experiment(), item.settings))
        elif isinstance(item, StageProgress):
            self._touch(item.stage)
        elif isinstance(item, StageStarted):
            self._running.add(item.stage)
            self._has_worked = True
            self._touch(item.stage)
        elif isinstance(item, StageFinished | StageFailed | StageDropped):
            self._running.discard(item.stage)
            self._touch(item.stage)
        elif isinstance(item, TrialFinished | TrialFailed):
            self._outcome(item.outcome)
        elif isinstance(item, StudyFinished):
            for outcome in item.outcomes:
                self._outcome(outcome)
            self._finished = item.outcomes
        elif isinstance(item, _Publish):
            self._publish = item

    def _trial(self, number: int, label: str, graph: StageGraph | None, experiment: Experiment | None) -> Trial:
        stages = {
            stage.kind: StagePlace.in_store(self._store.root, stage.kind, stage.identity)
            for stage in (graph.stages if graph else ())
        }
        key = Trial.key_of(number, stages)
        if key not in self._trials:
            self._trials[key] = Trial(number, label, key, experiment, stages)
            for stage in graph.stages if graph else ():
                self._by_stage[stage.name].append(self._trials[key])
        return self._trials[key]

    def _outcome(self, outcome: TrialOutcome) -> None:
        trial = self._trial(outcome.number, outcome.label, outcome.graph, outcome.experiment)
        if trial.end is None:
            entry = entry_from(outcome, self._study) if outcome.state == "complete" else None
            trial.end = TrialEnd(
                outcome.state, outcome.error, outcome.violations, entry, outcome.results, outcome.folders
            )
            trial.changed = True

    def _touch(self, stage: Stage) -> None:
        for trial in self._by_stage[stage.name]:
            trial.changed |= trial.end is None

    def _sample(self) -> None:
        if self._running and self._lease is not None and (values := self._system.sample()):
            self._log.add(time.time_ns() // 1_000_000, values)

    def _flush(self, closing: bool) -> bool:
        """Send everything that has changed; False if some of it was refused, raises if MLflow is away."""
        if self._runs is None:
            self._log.rewind()
            self._runs = self._connect()
        else:
            check_presence(self._uri)
        runs = self._runs
        if self._has_worked:
            runs.set_working()
        refused = False
        for trial in self._trials.values():
            if not trial.changed:
                continue
            try:
                runs.push_trial(trial)
                trial.changed = False
            except Exception as error:
                if not runs.is_reachable():
                    raise
                # MLflow is there but does not take this trial; the others must not wait for it.
                runs.forget(trial)
                refused = True
                self._warn(f"trial {trial.number} ({trial.label}): {type(error).__name__}: {error}")
        runs.push_system(self._log.new())
        if self._publish is not None:
            runs.push_leaderboard(self._publish.leaderboard, self._publish.files, self._trials.values())
            self._publish = None
        if closing:
            self._end(runs)
        write_record(self._folder, self.address, runs)
        if runs.unregistered is not None:
            self._say_unregistered(runs.unregistered)
        return not refused

    def _connect(self) -> StudyRuns:
        client = connect(self._uri)
        experiment = experiment_id(client, self._experiment, self._uri, self._store.root / "mlartifacts")
        start = self._log.start() or time.time_ns() // 1_000_000
        return StudyRuns(client, experiment, self._study, self._identity, start, self._count_part)

    def _count_part(self) -> None:
        self._parts_sent += 1

    def _end(self, runs: StudyRuns) -> None:
        if self._finished is None:
            runs.end("KILLED", self._trials.values())
        else:
            some = any(outcome.state == "complete" for outcome in self._finished)
            runs.end("FINISHED" if some else "FAILED", self._trials.values())

    def _say_away(self, error: Exception, closing: bool) -> None:
        """Tell of each absence once, and of its not having ended by the end."""
        reason = masked(f"{type(error).__name__}: {error}")[:500]
        if not self._is_away:
            self._is_away = True
            self._notify(
                f"MLflow at {self.address} could not be written: {reason}. The study goes on; its results are in the "
                "store, and what is missing is sent when MLflow answers again."
            )
        if closing:
            self._notify(
                f"MLflow at {self.address} does not have all of this study: {self._way_out()} sends what is missing."
            )

    def _say_unregistered(self, reason: str) -> None:
        if "registry" not in self._warned:
            self._warned.add("registry")
            self._notify(f"MLflow at {self.address} {without_registry(reason)}")

    def _warn(self, reason: str) -> None:
        """Say it once for each reason's kind, with the way out."""
        kind = reason.split(":")[0]
        if kind in self._warned:
            return
        self._warned.add(kind)
        self._notify(
            f"MLflow at {self.address} could not be written: {masked(reason)[:500]}. The study goes on; its results "
            f"are in the store, and {self._way_out()} sends what is missing."
        )

    def _way_out(self) -> str:
        return f"calm-bench mlflow sync {self._study.name} --store {self._store.place}"


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
