"""Stages as Ray tasks, on a private instance or an existing cluster."""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import Future
from typing import Any

from calm_bench.devices import available_cpus
from calm_bench.kept_folders import is_gone
from calm_bench.published_parts import in_this_process
from calm_bench.training_options import TrainingOptions
from pipelines.common.compiled_modules import way_out
from pipelines.execution.capacity import unschedulable_reason
from pipelines.execution.executor import ExecutorError
from pipelines.execution.failures import Cause, kernel_kills
from pipelines.execution.ray_instance import RayInstance
from pipelines.execution.ray_parts import PartWorkers
from pipelines.execution.ray_train import THREADS, node_with_capacity, this_node
from pipelines.execution.run_stage import StageError, run_stage
from pipelines.execution.same_code import DriverCode, call_checked, pickled
from pipelines.execution.worker_group import GIB, WorkerGroup, worker_group_of
from pipelines.execution.worker_process import StopFiles, hearing_sigterm
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind, in_one_piece


class RayExecutor:
    """Runs stages as Ray tasks with the CPUs, GPUs and memory that ``execution`` declares.

    Ray starts with the first stage submitted, so a study that is wholly cached does not pay for it. Workers are told to
    stop through a file in the store, which they share with the driver anyway.
    """

    def __init__(self, store: Store, execution: Execution) -> None:
        self._store = store
        self._execution = execution
        self._name = uuid.uuid4().hex
        self._ray = RayInstance(execution)
        self._code = DriverCode.here()
        self._unsent: dict[Stage, Future[dict[str, Any]]] = {}
        """Stages that wait for Ray to start."""
        self._lock = threading.Lock()
        """Guard of the unsent stages: this thread withdraws them, Ray's sends them."""
        self._has_lost = threading.Event()

    @property
    def parallelism(self) -> int:
        if self._execution.max_parallel is not None:
            return self._execution.max_parallel
        # Those that wait for capacity each hold a process, so no more than can be at work: most stages are trainings.
        per_stage = self._execution.cpus_per_stage * self._execution.workers
        if self._execution.address is None:
            # Ray itself holds back what does not fit for want of memory or a GPU.
            return max(1, int(available_cpus() / per_stage))
        # Some waiting stages let an autoscaling cluster see that more nodes are wanted.
        return max(1, 2 * int(self._ray.total("CPU") / per_stage)) if self._ray.is_ready else 1

    def submit(self, stage: Stage) -> Future[dict[str, Any]]:
        if self._execution.device == "cuda" and self._execution.gpus_per_stage == 0:
            raise ExecutorError("execution.device is cuda but execution.gpus_per_stage is 0: set it to 1, or a share")
        # Clear the wish to stop that a previous attempt left behind.
        self._store.flags.get(self._flag(stage)).unlink(missing_ok=True)
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            self._unsent[stage] = future
        self._ray.do(lambda: self._send(stage, future), lambda error: self._refuse(stage, future, error))
        return future

    def unschedulable_reason(self, stage: Stage) -> str | None:
        # A private Ray's only node was looked at before the first stage.
        if self._execution.address is None or not self._ray.is_ready:
            return None
        kind = STAGE_KINDS.get(stage.kind)
        parts = self._part_workers(stage, kind)
        group = self._group(kind) if parts is None else parts.group
        if group is not None:
            return unschedulable_reason(self._ray.nodes(), group.resources, group.size, group.on_one_node)
        execution = self._execution
        needs = {"CPU": execution.cpus_per_stage}
        if kind.uses_device and execution.gpus_per_stage:
            needs["GPU"] = execution.gpus_per_stage
        if execution.memory_per_stage is not None:
            needs["memory"] = execution.memory_per_stage * GIB
        return unschedulable_reason(self._ray.nodes(), needs)

    def stop(self) -> None:
        self._store.flags.raise_flag(self._flag())
        for stage in list(self._unsent):
            self._withdraw(stage)

    def stop_stage(self, stage: Stage) -> None:
        self._store.flags.raise_flag(self._flag(stage))
        self._withdraw(stage)

    def close(self) -> None:
        self._ray.end()
        if self._has_lost.is_set() and not is_gone(self._store.root):
            self._store.leases.sweep()
        self._store.flags.lower(self._name)

    def _group(self, kind: StageKind) -> WorkerGroup | None:
        return worker_group_of(kind, self._execution, on_one_node=not self._store.is_folder)

    def _part_workers(self, stage: Stage, kind: StageKind) -> PartWorkers | None:
        """What the workers of the stage's parts get; None for a stage that does its work itself."""
        if kind.in_parts is in_one_piece:
            return None
        try:
            results = {name: self._store.result(source) for name, source in stage.inputs.items()}
        except FileNotFoundError:
            # Damaged and moved away meanwhile, which the stage itself will tell.
            return None
        if not kind.in_parts(stage, results):
            return None
        return PartWorkers.of(self._execution, on_one_node=not self._store.is_folder)

    def _flag(self, stage: Stage | None = None) -> str:
        return self._name if stage is None else f"{self._name}-{stage.name}"

    def _take(self, stage: Stage, future: Future[dict[str, Any]]) -> bool:
        """Whether ``stage`` is still to be sent; nobody else sends or withdraws it afterwards."""
        with self._lock:
            if self._unsent.get(stage) is not future:
                return False
            del self._unsent[stage]
            return True

    def _withdraw(self, stage: Stage) -> None:
        """End a stage that was not sent yet."""
        future = self._unsent.get(stage)
        if future is not None and self._take(stage, future):
            future.set_exception(Interrupted(f"{stage} was stopped before it started"))

    def _refuse(self, stage: Stage, future: Future[dict[str, Any]], error: ExecutorError) -> None:
        if self._take(stage, future):
            future.set_exception(error)

    def _send(self, stage: Stage, future: Future[dict[str, Any]]) -> None:
        """Hand a stage to Ray, in Ray's thread."""
        if not self._take(stage, future):
            return
        import ray

        kind = STAGE_KINDS.get(stage.kind)
        gpus = self._execution.gpus_per_stage if kind.uses_device else 0.0
        memory = self._execution.memory_per_stage
        group = self._group(kind)
        own_gpus = gpus if group is None else 0.0
        parts = self._part_workers(stage, kind)
        is_alone = group is None and parts is None
        if not is_alone:
            # The workers take the resources of the stage; the task only waits for them.
            memory = None
        # A process that has begun on one GPU stays on it, whichever Ray shows it next, and keeps memory there: it ends
        # with its stage. Ray does so by itself only where GPUs are named in the decorator.
        remote = ray.remote(max_calls=1)(call_checked) if own_gpus else ray.remote(call_checked)
        task = remote.options(
            name=str(stage),
            num_cpus=self._execution.cpus_per_stage if is_alone else 0,
            num_gpus=own_gpus,
            memory=None if memory is None else int(memory * GIB),
            # The study itself tries again: Ray would do so for want of memory too, and nobody would hear of it.
            max_retries=0,
        )
        device = self._execution.device if gpus else "cpu"
        flags = (self._flag(), self._flag(stage))
        call = pickled(_perform, self._store, stage, kind, device, flags, self._execution.training, group, parts)
        kills = kernel_kills()
        reference = task.remote(self._code, call)
        reference.future().add_done_callback(lambda done: self._take_in(done, future, stage, kills))

    def _take_in(self, done: Future[Any], future: Future[dict[str, Any]], stage: Stage, kills_before: int) -> None:
        """Fill ``future`` with what came back from Ray."""
        error = done.exception()
        if error is not None:
            self._has_lost.set()
            future.set_exception(_lost(stage, error, kernel_kills() > kills_before, self._ray.logs))
        elif isinstance(answer := done.result(), Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _perform(
    store: Store,
    stage: Stage,
    kind: StageKind,
    device: str,
    flags: tuple[str, ...],
    training: TrainingOptions,
    group: WorkerGroup | None,
    parts: PartWorkers | None,
    placed: bool = False,
) -> dict[str, Any] | StageError | Interrupted:
    """In the worker. Expected errors are returned: raised ones would come back wrapped in a Ray exception.

    Args:
        parts: workers for what the stage has done in parts; None where it does its work itself.
        placed: this is the node on which the others are to work, if all of them must be on one.
    """
    os.environ.update(THREADS)
    asked = StopFiles(*map(store.flags.get, flags), every_s=store.backend.flags_every_s)
    try:
        with hearing_sigterm() as ordered:

            def stop() -> bool:
                return ordered() or asked()

            others = parts.group if parts is not None else group
            try:
                if others is not None and others.on_one_node and not placed:
                    # A task that takes nothing may be put where there is no capacity for its workers, on a head
                    # without GPUs.
                    node = node_with_capacity(others, stage, stop, None)
                    if node != this_node():
                        return _perform_on(node, store, stage, kind, device, flags, training, group, parts)
                context = StageContext(device, stop, training, parts or in_this_process)
                return run_stage(store, stage, kind, context, group)
            except Interrupted:
                if ordered() and not asked():
                    saved = "its worker was told to end (SIGTERM), and did so with its state saved"
                    return StageError(f"{stage}: {saved}", cause="transient")
                raise
    except (StageError, Interrupted) as error:
        # The traceback stays here: its frames cannot travel, its text already does.
        return error.with_traceback(None)


def _perform_on(node: str, store: Store, stage: Stage, *rest: Any) -> dict[str, Any] | StageError | Interrupted:
    """:func:`_perform` on another node, for a group that is placed there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(call_checked).options(name=str(stage), num_cpus=0, max_retries=0, scheduling_strategy=there)
    try:
        answer: dict[str, Any] | StageError | Interrupted = ray.get(
            task.remote(DriverCode.here(), pickled(_perform, store, stage, *rest, True))
        )
    except ray.exceptions.RayError as error:
        return _lost(stage, error, kernel_killed=False, logs=None)
    return answer


def _lost(stage: Stage, error: BaseException, kernel_killed: bool, logs: str | None) -> StageError:
    """What Ray tells of a stage whose worker gave no answer, in one line.

    Args:
        logs: the folder of Ray's own logs on each node, where the rest is; None where that is not known.
    """
    import ray.exceptions as of_ray

    first_line = next(iter(str(error).strip().splitlines()), "")
    named = f"{type(error).__name__}: {first_line}"
    advice = STAGE_KINDS.get(stage.kind).memory_advice(stage, None)
    if isinstance(error, of_ray.OutOfMemoryError):
        return StageError(f"{stage}: out of memory ({named}); {advice}", str(error), "memory")
    if isinstance(error, of_ray.WorkerCrashedError) and kernel_killed:
        killed = "its worker was killed while the kernel was short of memory"
        return StageError(f"{stage}: out of memory ({killed}); {advice}", str(error), "memory")
    transient = (
        of_ray.WorkerCrashedError,
        of_ray.NodeDiedError,
        of_ray.LocalRayletDiedError,
        of_ray.ObjectLostError,
        of_ray.OutOfDiskError,
        of_ray.RpcError,
    )
    cause: Cause = "transient" if isinstance(error, transient) else "permanent"
    if isinstance(error, of_ray.RayTaskError) and (remedy := way_out(type(error.cause).__name__, str(error.cause))):
        return StageError(f"{stage}: {remedy}", str(error), cause)
    rest = "" if logs is None else f"; Ray's logs of it are in {logs} on its node"
    return StageError(f"{stage}: its Ray worker was lost or could not start ({named}){rest}", str(error), cause)
