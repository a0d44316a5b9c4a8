"""How long stages take together: :mod:`pipelines.execution.scheduler`, played through without working."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from pipelines.study.stage import Stage, StageGraph


@dataclass(frozen=True)
class Job:
    """A stage that has to be run."""

    stage: Stage
    seconds: float
    """On a worker, while all workers are busy."""
    uses_torch: bool = True


@dataclass(frozen=True)
class Span:
    """When a stage runs, in seconds from the beginning."""

    start: float
    end: float


@dataclass
class _Running:
    job: Job
    worker: int
    start: float
    left: float


def simulated(
    jobs: Sequence[Job],
    graphs: Sequence[StageGraph],
    workers: int,
    alone: float = 1.0,
    import_s: float = 0.0,
) -> dict[Stage, Span]:
    """When each of ``jobs`` would run: ready stages with the longest chain behind them first, as workers are free.

    Args:
        graphs: of the trials, in their order; stages without a job are done.
        alone: time that a stage takes alone, as a share of its time while all workers are busy; between the two it
            goes by the number of those that are busy.
        import_s: what a worker's first stage with torch takes more.
    """
    waiting = {job.stage: job for job in jobs}
    chains = chain_lengths(graphs)
    order = {stage: number for number, stage in enumerate(dict.fromkeys(s for graph in graphs for s in graph.stages))}
    missing = {stage: sum(source in waiting for source in stage.inputs.values()) for stage in waiting}
    readers: dict[Stage, list[Stage]] = defaultdict(list)
    for stage in waiting:
        for source in stage.inputs.values():
            readers[source].append(stage)
    # A heap instead of a look at every waiting stage whenever one ends: a plan is linear in trials.
    ready: list[tuple[int, int, Stage]] = []

    def make_ready(stage: Stage) -> None:
        heappush(ready, (-chains[stage], order[stage], stage))

    for stage, count in missing.items():
        if count == 0:
            make_ready(stage)
    free = list(range(workers))
    has_torch: set[int] = set()
    running: list[_Running] = []
    spans: dict[Stage, Span] = {}
    now = 0.0
    while ready or running:
        while ready and free:
            job = waiting[heappop(ready)[2]]
            # A worker that has torch is used again, as Ray does.
            worker = min(free, key=lambda number: (number not in has_torch, number))
            free.remove(worker)
            first = job.uses_torch and worker not in has_torch
            if job.uses_torch:
                has_torch.add(worker)
            running.append(_Running(job, worker, now, job.seconds + (import_s if first else 0.0)))
        speed = _speed(len(running), workers, alone)
        step = min(each.left for each in running) / speed
        now += step
        for each in running:
            each.left -= step * speed
        for each in [each for each in running if each.left <= 1e-9 * max(now, 1.0)]:
            running.remove(each)
            free.append(each.worker)
            spans[each.job.stage] = Span(each.start, now)
            for reader in readers[each.job.stage]:
                missing[reader] -= 1
                if missing[reader] == 0:
                    make_ready(reader)
    return spans


def chain_lengths(graphs: Sequence[StageGraph]) -> Mapping[Stage, int]:
    """Stages in the longest chain from each stage to the end of a trial."""
    lengths: dict[Stage, int] = {}
    for graph in graphs:
        for stage in reversed(graph.stages):
            lengths.setdefault(stage, 1)
            for source in stage.inputs.values():
                lengths[source] = max(lengths.get(source, 1), lengths[stage] + 1)
    return lengths


def _speed(busy: int, workers: int, alone: float) -> float:
    """The rate of each of ``busy`` stages, where 1 is that with all workers busy."""
    if workers <= 1:
        return 1.0
    time = alone + (1.0 - alone) * (busy - 1) / (workers - 1)
    return 1.0 / time
