"""Keeps stages running: each once, after its inputs, the longest chains first."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from pipelines.events import (
    Listener,
    StageCached,
    StageFailed,
    StageFinished,
    StageQueued,
    StageStarted,
)
from pipelines.executor import Executor
from pipelines.follow import Follower
from pipelines.perform import StageError
from pipelines.stage import Interrupted, Stage, StageGraph
from pipelines.store import Store

LOOK_S = 1.0
"""How often running stages are looked at for progress."""


@dataclass
class _Running:
    future: Future[dict[str, Any]]
    follower: Follower
    submitted: float = field(default_factory=monotonic)
    started: float | None = None


class Scheduler:
    """The stages of all trials of a study, whichever trial brought them."""

    def __init__(self, store: Store, executor: Executor, listener: Listener) -> None:
        self._store = store
        self._executor = executor
        self._listener = listener
        self._waiting: dict[Stage, int] = {}
        """Stage -> number of stages in the longest chain from it to the end of a trial."""
        self._running: dict[Stage, _Running] = {}
        self.results: dict[Stage, dict[str, Any]] = {}
        self.errors: dict[Stage, str] = {}
        self._stopping = False

    def add(self, graph: StageGraph) -> bool:
        """Take up the stages of a trial; returns whether all of them were done before."""
        lengths = _chain_lengths(graph)
        cached = True
        for stage in graph.stages:
            if stage in self.results:
                continue
            if stage in self._waiting:
                self._waiting[stage] = max(self._waiting[stage], lengths[stage])
            elif stage not in self._running and stage not in self.errors:
                if self._store.is_done(stage):
                    self.results[stage] = self._store.result(stage)
                    self._listener.handle(StageCached(stage, self._store.folder(stage), self.results[stage]))
                    continue
                self._waiting[stage] = lengths[stage]
                self._listener.handle(StageQueued(stage))
            cached = False
        return cached

    def failure(self, graph: StageGraph) -> str | None:
        """The error that keeps a trial from its end, if there is one."""
        return next((self.errors[stage] for stage in graph.stages if stage in self.errors), None)

    def submit(self) -> None:
        """Hand ready stages to the executor, as many as it can run."""
        if self._stopping:
            return
        ready = [stage for stage in self._waiting if self._is_ready(stage)]
        ready.sort(key=lambda stage: -self._waiting[stage])
        for stage in ready:
            if len(self._running) >= self._executor.parallelism:
                return
            del self._waiting[stage]
            follower = Follower(stage, self._store.work_folder(stage), self._store.folder(stage))
            self._running[stage] = _Running(self._executor.submit(stage), follower)

    def wait(self) -> None:
        """Wait for a stage to end, a second at most; report progress and take in what ended."""
        wait([running.future for running in self._running.values()], timeout=LOOK_S, return_when=FIRST_COMPLETED)
        for stage, running in list(self._running.items()):
            self._look(stage, running)
            if running.future.done():
                del self._running[stage]
                self._end(stage, running)

    def stop(self) -> None:
        """Submit nothing more and ask what runs to save its state and end."""
        self._stopping = True
        self._executor.stop()

    @property
    def is_idle(self) -> bool:
        return not self._running

    def drop(self, keep: Iterable[StageGraph]) -> None:
        """Forget waiting stages that none of the graphs in ``keep`` needs: their trials have failed."""
        needed = {stage for graph in keep for stage in graph.stages}
        self._waiting = {stage: length for stage, length in self._waiting.items() if stage in needed}

    def _is_ready(self, stage: Stage) -> bool:
        return all(source in self.results for source in stage.inputs.values())

    def _look(self, stage: Stage, running: _Running) -> None:
        done = running.future.done()
        if running.started is None and (done or self._store.is_claimed(stage)):
            running.started = running.submitted if done else monotonic()
            self._listener.handle(StageStarted(stage, self._store.work_folder(stage)))
        for progress in running.follower.news():
            self._listener.handle(progress)

    def _end(self, stage: Stage, running: _Running) -> None:
        try:
            self.results[stage] = running.future.result()
        except Interrupted:
            # Its state is saved; it waits for the next run of the study.
            return
        except StageError as error:
            self.errors[stage] = str(error)
            self._listener.handle(StageFailed(stage, str(error)))
            return
        seconds = monotonic() - (running.started or running.submitted)
        self._listener.handle(StageFinished(stage, self._store.folder(stage), self.results[stage], seconds))


def _chain_lengths(graph: StageGraph) -> dict[Stage, int]:
    lengths = dict.fromkeys(graph.stages, 1)
    for stage in reversed(graph.stages):
        for source in stage.inputs.values():
            lengths[source] = max(lengths[source], lengths[stage] + 1)
    return lengths
