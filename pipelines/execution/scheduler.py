"""Keeps stages running: each once, after its inputs, the longest chains first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from itertools import filterfalse, islice
from math import inf
from time import monotonic, sleep
from typing import Any

from calm_bench.working_directory import leave_removed
from pipelines.execution.events import (
    Listener,
    StageCached,
    StageDropped,
    StageFailed,
    StageFinished,
    StageQueued,
    StageRetried,
    StageStarted,
    StageWaiting,
)
from pipelines.execution.executor import Executor
from pipelines.execution.follow import Follower
from pipelines.execution.run_stage import StageError
from pipelines.store.place import check_store
from pipelines.store.store import Store
from pipelines.study.stage import Interrupted, Stage, StageGraph
from pipelines.study.stage_kind import STAGE_KINDS

POLL_S = 1.0
"""How often running stages are looked at for progress."""
LISTEN_S = 0.1
"""How often it is asked meanwhile whether to stop: Ray aborts a process whose servers are ended while it starts."""
PATIENCE_S = 20.0
"""After so long it is asked whether a stage can be placed at all."""
GIVE_UP_S = 10.0
"""So long a stage that is asked to end may be in nobody's hands."""
AGAIN = "; what it had saved is kept, and --retry-failed continues from there"
"""What to do about a stage that a worker, a disk or a network let down as often as it was tried."""
GRACE_S = 2.0
"""Who ends all processes of a job at once may reach this one after its workers."""


@dataclass
class _Running:
    future: Future[dict[str, Any]]
    follower: Follower
    elsewhere: bool = False
    """Whether another driver was at it when it was submitted."""
    submitted: float = field(default_factory=monotonic)
    started: float | None = None
    ask_at: float = field(default_factory=lambda: monotonic() + PATIENCE_S)
    """When it is asked next whether the stage can be placed at all."""
    unwanted: bool = False
    """Asked to end, since no trial needs it any more."""
    wanted_again: int | None = None
    """Length of the longest chain from it, where a trial needs it after all."""
    in_hands: float = inf
    """When it was last seen in somebody's hands, once it is asked to end."""


class Scheduler:
    """The stages of all trials of a study, whichever trial brought them.

    Args:
        retries: how often a stage is tried again that was let down by something that may pass.
        stop_asked: whether somebody wants this process to stop; :meth:`stop` follows when it has been noticed.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        listener: Listener,
        retries: int = 0,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._executor = executor
        self._listener = listener
        self._waiting: dict[Stage, int] = {}
        """Stage -> number of stages in the longest chain from it to the end of a trial."""
        self._running: dict[Stage, _Running] = {}
        self._retries = retries
        self._stop_asked = stop_asked
        self._retried: Counter[Stage] = Counter()
        self.results: dict[Stage, dict[str, Any]] = {}
        self.errors: dict[Stage, str] = {}
        self._stopping = False
        self.num_ended = 0
        """How many stages have ended: while it stays, no trial has come to its end."""

    def add(self, graph: StageGraph) -> bool:
        """Take up the stages of a trial; returns whether all of them were done before."""
        lengths = _chain_lengths(graph)
        cached = True
        for stage in graph.stages:
            if stage in self.results:
                continue
            if stage in self._waiting:
                self._waiting[stage] = max(self._waiting[stage], lengths[stage])
            elif stage in self._running:
                if self._running[stage].unwanted:
                    self._running[stage].wanted_again = lengths[stage]
            elif stage not in self.errors:
                if self._store.is_done(stage):
                    self.results[stage] = self._store.result(stage)
                    self._listener.handle(StageCached(stage, self._store.folder(stage), self.results[stage]))
                    continue
                self._waiting[stage] = lengths[stage]
                self._listener.handle(StageQueued(stage))
            cached = False
        self._refuse_impossible(graph.stages)
        return cached

    def failure(self, graph: StageGraph) -> str | None:
        """The error that keeps a trial from its end, if there is one."""
        return next((self.errors[stage] for stage in graph.stages if stage in self.errors), None)

    def submit(self) -> None:
        """Hand ready stages to the executor, as many as it can run."""
        # Before all else: to look through thousands of waiting stages every second is work too.
        if self._stopping or not self._waiting or len(self._running) >= self._executor.parallelism:
            return
        ready = [stage for stage in self._waiting if self._is_ready(stage)]
        # The stage that ends a trial goes first: it is short beside a training, and a row is scored once its model is
        # there.
        ready.sort(key=lambda stage: (self._waiting[stage] > 1, -self._waiting[stage]))
        free = self._executor.parallelism - len(self._running)
        # Stages that another driver has claimed come last: this one would only wait for them.
        chosen = list(islice(filterfalse(self._store.is_claimed, ready), free))
        claimed = [stage for stage in ready if stage not in set(chosen)][: free - len(chosen)]
        chosen += claimed
        for stage in chosen:
            del self._waiting[stage]
            follower = Follower(stage, self._store.work_folder(stage), self._store.folder(stage))
            # What was begun here and is tried again may have left a claim.
            elsewhere = stage in claimed and not self._retried[stage]
            self._running[stage] = _Running(self._executor.submit(stage), follower, elsewhere)

    def wait(self) -> None:
        """Wait for a stage to end, a second at most; report progress and take in what ended.

        Raises:
            FolderGone: somebody moved or removed the store meanwhile.
        """
        futures, deadline = [running.future for running in self._running.values()], monotonic() + POLL_S
        while futures and not wait(futures, LISTEN_S, FIRST_COMPLETED).done and monotonic() < deadline:
            if self._stop_asked() and not self._stopping:
                return
        # What fails for want of its folder is no failure of a stage.
        check_store(self._store)
        leave_removed()
        for stage, running in list(self._running.items()):
            self._poll(stage, running)
            if self._stopping and not running.future.done():
                self._give_up(stage, running)
            if running.future.done():
                del self._running[stage]
                self.num_ended += 1
                self._end(stage, running)

    def stop(self) -> None:
        """Submit nothing more and ask what runs to save its state and end."""
        self._stopping = True
        self._executor.stop()

    def _give_up(self, stage: Stage, running: _Running) -> None:
        """End a stage for which no worker answers: it had not begun, or its worker is gone.

        Where all processes of a job are told to end at once, a worker may wait for a server of Ray that is gone.
        """
        if running.in_hands == inf or self._store.is_claimed(stage):
            running.in_hands = monotonic()
        elif monotonic() > running.in_hands + GIVE_UP_S:
            # The executor keeps its own, which it may fill all the same.
            running.future = Future()
            running.future.set_exception(Interrupted(f"{stage} had not begun, or its worker is gone"))

    @property
    def is_idle(self) -> bool:
        return not self._running

    def drop(self, keep: Iterable[StageGraph]) -> None:
        """Forget waiting stages that none of the graphs in ``keep`` needs, and ask running ones to end.

        Their trials have failed or were pruned; what the running ones had reached stays in their work folders.
        """
        needed = {stage for graph in keep for stage in graph.stages}
        for stage in [stage for stage in self._waiting if stage not in needed]:
            del self._waiting[stage]
            self._listener.handle(StageDropped(stage))
        for stage, running in self._running.items():
            if stage not in needed and not running.unwanted:
                running.unwanted = True
                self._executor.stop_stage(stage)

    def _is_ready(self, stage: Stage) -> bool:
        return all(source in self.results for source in stage.inputs.values())

    def _poll(self, stage: Stage, running: _Running) -> None:
        done = running.future.done()
        if done and self._store.is_done_now(stage):
            # Elsewhere, perhaps: what its metrics say at the end is read here.
            running.follower.finished_in(self._store.summaries([stage])[stage])
        if running.started is None and (done or self._store.is_claimed(stage)):
            running.started = running.submitted if done else monotonic()
            self._listener.handle(StageStarted(stage, self._store.work_folder(stage)))
        for progress in running.follower.news():
            self._listener.handle(progress)
        if not done and monotonic() > running.ask_at:
            reason = self._executor.unschedulable_reason(stage)
            # Asked again where nothing is in the way yet: Ray may still be starting, and nodes may go.
            running.ask_at = monotonic() + PATIENCE_S if reason is None else inf
            if reason is not None:
                self._listener.handle(StageWaiting(stage, reason))

    def _end(self, stage: Stage, running: _Running) -> None:
        try:
            self.results[stage] = running.future.result()
        except Interrupted:
            # Its state is saved; it waits for the next run of the study, or goes on at once.
            if running.wanted_again is not None and not self._stopping:
                self._waiting[stage] = running.wanted_again
            elif running.unwanted:
                self._listener.handle(StageDropped(stage))
            return
        except StageError as error:
            if error.cause == "transient" and self._is_being_stopped(stage):
                # It was ended with this process, and goes on with it.
                return
            if running.unwanted or not self._try_again(stage, error):
                self.errors[stage] = told = f"{error}{AGAIN if error.cause == 'transient' else ''}"
                self._listener.handle(StageFailed(stage, told))
            return
        seconds = monotonic() - (running.started or running.submitted)
        folder, elsewhere = self._store.folder(stage), running.elsewhere
        self._listener.handle(StageFinished(stage, folder, self.results[stage], seconds, elsewhere))
        self._refuse_impossible([other for other in self._waiting if stage in other.inputs.values()])

    def _refuse_impossible(self, stages: Iterable[Stage]) -> None:
        """Let waiting stages fail that the results of their inputs rule out, before other inputs are made for them."""
        for stage in stages:
            if stage not in self._waiting:
                continue
            known = {name: self.results[source] for name, source in stage.inputs.items() if source in self.results}
            kind = STAGE_KINDS.get(stage.kind)
            reason = kind.refusal(stage, known) if known else None
            if reason is None and known:
                folders = {name: self._store.folder(stage.inputs[name]) for name in known}
                reason = kind.refusal_by_files(stage, folders)
            if reason is not None:
                del self._waiting[stage]
                self.errors[stage] = reason
                self.num_ended += 1
                self._listener.handle(StageFailed(stage, reason))

    def _is_being_stopped(self, stage: Stage) -> bool:
        """Whether a stop explains that a stage was let down; waits a moment for one where it would fail for good."""
        deadline = monotonic() + (GRACE_S if self._retried[stage] >= self._retries else 0.0)
        while not (self._stopping or self._stop_asked()) and monotonic() < deadline:
            sleep(0.05)
        return self._stopping or self._stop_asked()

    def _try_again(self, stage: Stage, error: StageError) -> bool:
        """Queue a failed stage once more if that may help; returns whether."""
        if error.cause != "transient" or self._retried[stage] >= self._retries:
            return False
        self._retried[stage] += 1
        self._listener.handle(StageRetried(stage, str(error), self._retried[stage], self._retries))
        self._queue_again(stage, 1)
        return True

    def _queue_again(self, stage: Stage, length: int) -> None:
        """Queue ``stage``, and those of its inputs that were quarantined as damaged before it."""
        self._waiting[stage] = length
        for source in stage.inputs.values():
            if source in self.results and not self._store.is_done_now(source):
                del self.results[source]
                self._queue_again(source, length + 1)


def _chain_lengths(graph: StageGraph) -> dict[Stage, int]:
    lengths = dict.fromkeys(graph.stages, 1)
    for stage in reversed(graph.stages):
        for source in stage.inputs.values():
            lengths[source] = max(lengths[source], lengths[stage] + 1)
    return lengths
