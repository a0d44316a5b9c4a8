"""Stages as Ray tasks, on a private instance or an existing cluster."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import Future
from typing import Any

from calm_bench.devices import available_cpus
from pipelines.execution.capacity import lacking_room
from pipelines.execution.executor import ExecutorError
from pipelines.execution.failures import Cause, kernel_kills
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_instance import RayInstance
from pipelines.execution.ray_train import THREADS, node_with_room, this_node
from pipelines.execution.run_stage import StageError, run_stage
from pipelines.execution.worker_group import GIB, Crew, crew_of
from pipelines.execution.worker_process import StopFiles
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.stage import STAGE_KINDS, Interrupted, Stage, StageKind


class RayExecutor:
    """Runs stages as Ray tasks with the CPUs, GPUs and memory that ``execution`` declares.

    Ray starts when it is prepared or with the first stage submitted, so a study that is wholly cached does not pay for
    it. Workers are told to stop through a file in the store, which they share with the driver anyway. While a private
    Ray is still starting, a stage that only moves text is run in this process: all others wait for it.
    """

    def __init__(self, store: Store, execution: Execution) -> None:
        self._store = store
        self._execution = execution
        self._name = uuid.uuid4().hex
        self._ray = RayInstance(execution)
        self._meanwhile = LocalExecutor(store, "cpu", execution.keep_checkpoints)
        self._first: Future[dict[str, Any]] | None = None
        """Of the last stage that was run in this process."""
        self._checked = False

    def prepare(self) -> None:
        self._ray.begin()

    def settle(self) -> None:
        self._ray.settle()

    @property
    def parallelism(self) -> int:
        if self._execution.max_parallel is not None:
            return self._execution.max_parallel
        # Those that wait for room each hold a process, so no more than can be at work: most stages are trainings.
        per_stage = self._execution.cpus_per_stage * self._execution.workers
        if self._execution.address is None:
            # Ray itself holds back what does not fit for want of memory or a GPU.
            return max(1, int(available_cpus() / per_stage))
        # Some waiting stages let an autoscaling cluster see that more nodes are wanted.
        return max(1, 2 * int(self._ray.resources().get("CPU", 0) / per_stage))

    def submit(self, stage: Stage) -> Future[dict[str, Any]]:
        if self._execution.device == "cuda" and self._execution.gpus_per_stage == 0:
            raise ExecutorError("execution.device is cuda but execution.gpus_per_stage is 0: set it to 1, or a share")
        kind = STAGE_KINDS.get(stage.kind)
        is_free = self._first is None or self._first.done()
        if self._execution.address is None and is_free and not kind.uses_torch and self._ray.is_starting():
            self._first = self._meanwhile.submit(stage)
            return self._first
        self._check()
        import ray

        gpus = self._execution.gpus_per_stage if kind.uses_device else 0.0
        memory = self._execution.memory_per_stage
        crew = self._crew(kind)
        if crew is not None:
            # What the stage needs its workers take; the task only waits for them.
            memory = None
        task = ray.remote(_perform).options(
            name=str(stage),
            num_cpus=self._execution.cpus_per_stage if crew is None else 0,
            num_gpus=gpus if crew is None else 0,
            memory=None if memory is None else int(memory * GIB),
            # The study itself tries again: Ray would do so for want of memory too, and nobody would hear of it.
            max_retries=0,
        )
        device = self._execution.device if gpus else "cpu"
        flags = (self._flag(), self._flag(stage))
        # What an earlier try of the stage was stopped by must not stop this one.
        self._store.flag(flags[1]).unlink(missing_ok=True)
        kills = kernel_kills()
        reference = task.remote(self._store, stage, kind, device, flags, self._execution.keep_checkpoints, crew)
        future: Future[dict[str, Any]] = Future()
        reference.future().add_done_callback(lambda done: _pass_on(done, future, stage, kills))
        return future

    def lacking(self, stage: Stage) -> str | None:
        # A private Ray's only node was looked at before the first stage.
        if self._execution.address is None or not self._checked:
            return None
        kind = STAGE_KINDS.get(stage.kind)
        crew = self._crew(kind)
        if crew is not None:
            return lacking_room(self._ray.nodes(), crew.resources, crew.size, crew.on_one_node)
        execution = self._execution
        needs = {"CPU": execution.cpus_per_stage}
        if kind.uses_device and execution.gpus_per_stage:
            needs["GPU"] = execution.gpus_per_stage
        if execution.memory_per_stage is not None:
            needs["memory"] = execution.memory_per_stage * GIB
        return lacking_room(self._ray.nodes(), needs)

    def _crew(self, kind: StageKind) -> Crew | None:
        return crew_of(kind, self._execution, on_one_node=self._store.place != str(self._store.root))

    def stop(self) -> None:
        self._meanwhile.stop()
        self._store.raise_flag(self._flag())

    def stop_stage(self, stage: Stage) -> None:
        self._meanwhile.stop_stage(stage)
        self._store.raise_flag(self._flag(stage))

    def _flag(self, stage: Stage | None = None) -> str:
        return self._name if stage is None else f"{self._name}-{stage.name}"

    def close(self) -> None:
        self._meanwhile.close()
        self._ray.end()
        self._store.lower_flags(self._name)

    def _check(self) -> None:
        """Start Ray, and see once that it has what a stage needs."""
        if self._checked:
            return
        execution = self._execution
        found = self._ray.resources()
        workers = execution.workers
        needs = {
            "CPU": (workers * execution.cpus_per_stage, "cpus_per_stage"),
            "GPU": (workers * execution.gpus_per_stage, "gpus_per_stage"),
            "memory": (workers * (execution.memory_per_stage or 0.0) * GIB, "memory_per_stage"),
        }
        for resource, (needed, setting) in needs.items():
            available = found.get(resource, 0.0)
            if execution.address is None and available < needed:
                unit, name = (GIB, "GiB of memory") if resource == "memory" else (1, resource)
                raise ExecutorError(
                    f"a stage needs {needed / unit:.4g} {name} and Ray found {available / unit:.4g}: lower "
                    f"execution.{setting}{' or execution.workers' if workers > 1 else ''}, or give the address of a "
                    "cluster in execution.address"
                )
        self._checked = True


def _perform(
    store: Store,
    stage: Stage,
    kind: StageKind,
    device: str,
    flags: tuple[str, ...],
    keep_checkpoints: int,
    crew: Crew | None,
    seated: bool = False,
) -> dict[str, Any] | StageError | Interrupted:
    """In the worker. Expected errors are returned: raised ones would come back wrapped in a Ray exception.

    Args:
        seated: this is the node on which the crew is to work, if all of it must be on one.
    """
    os.environ.update(THREADS)
    try:
        stop = StopFiles(*map(store.flag, flags), every_s=store.flags_every_s)
        if crew is not None and crew.on_one_node and not seated:
            # A task that takes nothing may be put where there is no room for its workers, on a head without GPUs.
            node = node_with_room(crew, stage, stop, None)
            if node != this_node():
                return _perform_on(node, store, stage, kind, device, flags, keep_checkpoints, crew)
        return run_stage(store, stage, kind, device, stop, keep_checkpoints, crew)
    except (StageError, Interrupted) as error:
        # The traceback stays here: its frames cannot travel, its text already does.
        return error.with_traceback(None)


def _perform_on(node: str, store: Store, stage: Stage, *rest: Any) -> dict[str, Any] | StageError | Interrupted:
    """:func:`_perform` on another node, for a crew that has a place there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(_perform).options(name=str(stage), num_cpus=0, max_retries=0, scheduling_strategy=there)
    try:
        answer: dict[str, Any] | StageError | Interrupted = ray.get(task.remote(store, stage, *rest, True))
    except ray.exceptions.RayError as error:
        return _lost(stage, error, kernel_killed=False)
    return answer


def _pass_on(done: Future[Any], future: Future[dict[str, Any]], stage: Stage, kills_before: int) -> None:
    """Fill ``future`` with what came back from Ray."""
    error = done.exception()
    if error is not None:
        future.set_exception(_lost(stage, error, kernel_kills() > kills_before))
    elif isinstance(answer := done.result(), Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _lost(stage: Stage, error: BaseException, kernel_killed: bool) -> StageError:
    """What Ray tells of a stage whose worker gave no answer."""
    import ray.exceptions as of_ray

    first_line = next(iter(str(error).strip().splitlines()), "")
    named = f"{type(error).__name__}: {first_line}"
    advice = STAGE_KINDS.get(stage.kind).memory_advice(stage, None)
    if isinstance(error, of_ray.OutOfMemoryError):
        return StageError(f"{stage}: out of memory ({named}); {advice}", str(error), "memory")
    if isinstance(error, of_ray.WorkerCrashedError) and kernel_killed:
        killed = "its worker was killed while the kernel was short of memory"
        return StageError(f"{stage}: out of memory ({killed}); {advice}", str(error), "memory")
    passing = (
        of_ray.WorkerCrashedError,
        of_ray.NodeDiedError,
        of_ray.LocalRayletDiedError,
        of_ray.ObjectLostError,
        of_ray.OutOfDiskError,
        of_ray.RpcError,
    )
    cause: Cause = "passing" if isinstance(error, passing) else "permanent"
    return StageError(
        f"{stage}: its Ray worker was lost or could not start ({named}). "
        "What it had saved is kept; --retry-failed continues from there.",
        str(error),
        cause,
    )
