"""The mirror of a study in MLflow: one writer in a thread of its own, which training neither waits for nor dies of."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.config import Experiment
from calm_bench.fingerprint import identity as fingerprint
from calm_bench.overrides import apply_settings
from calm_bench.study_config import Study, Tracking
from pipelines.engine.events import (
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
from pipelines.leaderboard.leaderboard import Leaderboard
from pipelines.mirror.address import masked, tracking_uri
from pipelines.mirror.client import connect, experiment_id
from pipelines.mirror.metrics import TRAINED_KINDS, Line
from pipelines.mirror.runs import StudyRuns, Trial
from pipelines.mirror.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from pipelines.stages.stage import Stage, StageGraph
    from pipelines.sweep.trial import TrialOutcome

_MOST_SAMPLES = 10_000
"""System samples kept while MLflow is away: more than a day of them."""


@dataclass(frozen=True)
class _Publish:
    leaderboard: Leaderboard
    text: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Close:
    pass


class MlflowMirror:
    """Listens to a study and repeats it in MLflow (:class:`pipelines.engine.events.Listener`).

    The store's files are the truth. What cannot be sent is tried again every ``retry_interval_s`` seconds and at the
    end; if it still fails, running the same command again sends what is missing, and only that.
    """

    def __init__(
        self,
        tracking: Tracking,
        store_root: Path,
        study: Study,
        identity: str,
        notify: Callable[[str], None] | None = None,
        *,
        flush_interval_s: float = 2.0,
        retry_interval_s: float = 30.0,
        system_metrics: SystemMetrics | None = None,
    ) -> None:
        self._uri = tracking_uri(tracking, store_root)
        self._experiment = tracking.experiment
        self._artifacts = store_root / "mlartifacts"
        self._study = study
        self._identity = identity
        self._notify = notify or _to_stderr
        self._flush_interval_s = flush_interval_s
        self._retry_interval_s = retry_interval_s

        self._queue: queue.SimpleQueue[Event | _Publish | _Close] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._warned: set[str] = set()
        self._all_sent = True

        # Below: touched by the writer's thread only.
        self._runs: StudyRuns | None = None
        self._trials: dict[str, Trial] = {}
        self._histories: dict[Stage, list[Line]] = {}
        self._publish: _Publish | None = None
        self._system = system_metrics or SystemMetrics()
        self._samples: list[tuple[int, dict[str, float]]] = []
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

    def publish(self, leaderboard: Leaderboard, text: str, files: Iterable[Path]) -> None:
        """Attach the leaderboard's ``files`` to the study's run, and ``text`` (Markdown) as its description."""
        self._put(_Publish(leaderboard, text, tuple(files)))

    def close(self, timeout_s: float = 60.0) -> bool:
        """Send what is left, for ``timeout_s`` seconds at most; whether all has arrived."""
        if self._thread is None:
            return True
        self._queue.put(_Close())
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._warn("it takes too long to answer")
            return False
        return self._all_sent

    def _put(self, item: Event | _Publish) -> None:
        self._queue.put(item)
        if self._thread is None:
            # A daemon, so that a server which does not answer cannot keep the process alive.
            self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        next_flush = 0.0
        while True:
            items = self._wait()
            closing = any(isinstance(item, _Close) for item in items)
            for item in items:
                self._guarded(self._note, item)
            self._guarded(self._sample)
            if closing or time.monotonic() >= next_flush:
                self._all_sent = self._guarded(self._flush, closing)
                pause = self._flush_interval_s if self._all_sent else self._retry_interval_s
                next_flush = time.monotonic() + pause
            if closing:
                return

    def _guarded(self, step: Callable[..., bool | None], *arguments: object) -> bool:
        """Call ``step``; whether it neither raised nor answered False.

        Whatever MLflow, its database driver or the network raises, the study goes on without the mirror.
        """
        try:
            return step(*arguments) is not False
        except Exception as error:
            self._warn(f"{type(error).__name__}: {error}")
            return False

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
        elif isinstance(item, StageStarted):
            self._running.add(item.stage)
            self._has_worked = True
        elif isinstance(item, StageFinished | StageFailed | StageDropped):
            self._running.discard(item.stage)
            self._histories.pop(item.stage, None)
        elif isinstance(item, StageProgress):
            self._progress(item)
        elif isinstance(item, TrialFinished | TrialFailed):
            self._outcome(item.outcome)
        elif isinstance(item, StudyFinished):
            for outcome in item.outcomes:
                self._outcome(outcome)
            self._finished = item.outcomes
        elif isinstance(item, _Publish):
            self._publish = item

    def _trial(self, number: int, label: str, graph: StageGraph | None, experiment: Experiment | None) -> Trial:
        # With the last stage's identity, because equal settings on another corpus or Python are another result.
        key = f"{number}/{graph.stages[-1].identity if graph else 'invalid'}"
        if key not in self._trials:
            stages = frozenset(graph.values() if graph else ())
            # A stage that another trial has started already: this one needs its first lines as well.
            lines = [line for stage in stages for line in self._histories.get(stage, [])]
            self._trials[key] = Trial(number, label, key, experiment, stages, lines)
        return self._trials[key]

    def _outcome(self, outcome: TrialOutcome) -> None:
        trial = self._trial(outcome.number, outcome.label, outcome.graph, outcome.experiment)
        if trial.outcome is None:
            trial.outcome = outcome
            trial.changed = True

    def _progress(self, event: StageProgress) -> None:
        if event.stage.kind not in TRAINED_KINDS:
            return
        line = Line(event.stage.kind, event.split, event.step, event.flops, event.time, event.metrics)
        self._histories.setdefault(event.stage, []).append(line)
        for trial in self._trials.values():
            if trial.outcome is None and event.stage in trial.stages:
                trial.lines.append(line)
                trial.changed = True

    def _sample(self) -> None:
        if self._running and (values := self._system.sample()):
            self._samples = [*self._samples[-_MOST_SAMPLES:], (time.time_ns() // 1_000_000, values)]

    def _flush(self, closing: bool) -> bool:
        """Send everything that has changed; False if some of it was refused, raises if MLflow is away."""
        if self._runs is None:
            client = connect(self._uri)
            self._runs = StudyRuns(
                client, experiment_id(client, self._experiment, self._uri, self._artifacts), self._study, self._identity
            )
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
                refused = True
                self._warn(f"trial {trial.number} ({trial.label}): {type(error).__name__}: {error}")
        if self._samples:
            runs.push_system(self._samples)
            self._samples = []
        if self._publish is not None:
            publish = self._publish
            runs.push_leaderboard(fingerprint(publish.leaderboard.to_json()), publish.text, publish.files)
            self._publish = None
        if closing:
            self._end(runs)
        return not refused

    def _end(self, runs: StudyRuns) -> None:
        if self._finished is None:
            runs.end("KILLED", [trial for trial in self._trials.values() if trial.outcome is None])
        else:
            some = any(outcome.state == "complete" for outcome in self._finished)
            runs.end("FINISHED" if some else "FAILED", [])

    def _warn(self, reason: str) -> None:
        """Say it once for each reason's kind, with the way out."""
        kind = reason.split(":")[0]
        if kind in self._warned:
            return
        self._warned.add(kind)
        self._notify(
            f"MLflow at {self.address} could not be written: {masked(reason)[:500]}. The study goes on; its results "
            f"are in the store, and the same command sends what is missing when it runs again."
        )


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
