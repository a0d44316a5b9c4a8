"""Stages as Ray tasks, on a private instance or an existing cluster."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calm_bench.study_config import Execution
from pipelines.engine.crew import GIB, Crew, crew_of
from pipelines.engine.executor import ExecutorError, available_cpus
from pipelines.engine.failures import Cause, kernel_kills, memory_report
from pipelines.engine.perform import StageError, StopFiles, perform
from pipelines.engine.ray_train import THREADS
from pipelines.stages.stage import STAGE_KINDS, Interrupted, Stage, StageKind
from pipelines.store.store import Store

ONE_HOST = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable for whether nodes may join from other hosts; where they may not, it listens on loopback only."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Results are small and artifacts travel through the store, so Ray's usual third of the memory is not needed."""


class RayExecutor:
    """Runs stages as Ray tasks with the CPUs, GPUs and memory that ``execution`` declares.

    Ray starts with the first stage submitted, so a study that is wholly cached does not pay for it. Workers are told
    to stop through a file in the store, which they share with the driver anyway.
    """

    def __init__(self, store: Store, execution: Execution) -> None:
        self._store = store
        self._execution = execution
        self._name = uuid.uuid4().hex
        self._started = False
        self._closed = False

    @property
    def parallelism(self) -> int:
        if self._execution.max_parallel is not None:
            return self._execution.max_parallel
        per_stage = self._execution.cpus_per_stage
        if self._execution.address is None:
            # Ray itself holds back what does not fit for want of memory or a GPU.
            return max(1, int(available_cpus() / per_stage))
        # Some waiting stages let an autoscaling cluster see that more nodes are wanted.
        return max(1, 2 * int(self._resources().get("CPU", 0) / per_stage))

    def submit(self, stage: Stage) -> Future[dict[str, Any]]:
        self._start()
        import ray

        kind = STAGE_KINDS.get(stage.kind)
        gpus = self._execution.gpus_per_stage if kind.uses_device else 0.0
        memory = self._execution.memory_per_stage
        crew = crew_of(kind, self._execution, on_one_node=self._store.place != str(self._store.root))
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

    def stop(self) -> None:
        self._store.raise_flag(self._flag())

    def stop_stage(self, stage: Stage) -> None:
        self._store.raise_flag(self._flag(stage))

    def _flag(self, stage: Stage | None = None) -> str:
        return self._name if stage is None else f"{self._name}-{stage.name}"

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._started:
            import ray

            ray.shutdown()
        self._store.lower_flags(self._name)

    def _start(self) -> None:
        if self._started:
            return
        execution = self._execution
        if execution.device == "cuda" and execution.gpus_per_stage == 0:
            raise ExecutorError("execution.device is cuda but execution.gpus_per_stage is 0: set it to 1, or a share")
        with _environment({} if execution.address else _private_environment()), _own_signal_handlers():
            import ray

            if ray.is_initialized():
                raise ExecutorError("Ray is already running in this process: run the study where it is not")
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            try:
                if execution.address is None:
                    with _on_loopback():
                        # Not left unset: Ray would then join an instance that somebody else started on this machine.
                        ray.init(
                            "local",
                            num_cpus=max(available_cpus(), math.ceil(execution.workers * execution.cpus_per_stage)),
                            include_dashboard=False,
                            object_store_memory=OBJECT_STORE_BYTES,
                            **quiet,
                        )
                else:
                    ray.init(execution.address, runtime_env=_travelling_code(), **quiet)
            except Exception as error:
                where = f"at {execution.address}" if execution.address else "on this machine"
                raise ExecutorError(
                    f"Ray did not start {where}: {error}. --local runs the same study in this process."
                ) from error
        self._started = True
        found = self._resources()
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

    def _resources(self) -> dict[str, float]:
        self._start()
        import ray

        resources: dict[str, float] = ray.cluster_resources()
        return resources


def _perform(
    store: Store,
    stage: Stage,
    kind: StageKind,
    device: str,
    flags: tuple[str, ...],
    keep_checkpoints: int,
    crew: Crew | None,
) -> dict[str, Any] | StageError | Interrupted:
    """In the worker. Expected errors are returned: raised ones would come back wrapped in a Ray exception."""
    os.environ.update(THREADS)
    try:
        stop = StopFiles(*map(store.flag, flags), every_s=store.flags_every_s)
        return perform(store, stage, kind, device, stop, keep_checkpoints, crew)
    except (StageError, Interrupted) as error:
        # The traceback stays here: its frames cannot travel, its text already does.
        return error.with_traceback(None)


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
    if isinstance(error, of_ray.OutOfMemoryError):
        return StageError(f"{stage}: out of memory ({named}); {memory_report(stage)}", str(error), "memory")
    if isinstance(error, of_ray.WorkerCrashedError) and kernel_killed:
        killed = "its worker was killed while the kernel was short of memory"
        return StageError(f"{stage}: out of memory ({killed}); {memory_report(stage)}", str(error), "memory")
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


def _private_environment() -> dict[str, str]:
    """What the processes of a private Ray inherit."""
    return {
        # Nobody but this process talks to it, over loopback, where alone it listens: as on other systems, although
        # Linux could have clusters. Its servers run what they are sent, so all the machine's addresses will not do.
        ONE_HOST: "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A stage that declared no GPU must not see one, or its numbers would depend on where it lands.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        **THREADS,
        **_import_path(),
    }


def _import_path() -> dict[str, str]:
    """PYTHONPATH by which workers find a checkout that this process imports without installation."""
    root = Path(__file__).resolve().parent.parent.parent
    if root.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}


def _travelling_code() -> dict[str, Any]:
    """A runtime environment that brings the three packages to nodes where they are not installed."""
    root = Path(__file__).resolve().parent.parent.parent
    packages = [str(root / name) for name in ("calm_bench", "evals", "pipelines")]
    return {"py_modules": packages, "env_vars": {**THREADS, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}}


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep this process's handlers: Ray's for SIGTERM would end the driver where it stands."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """What :data:`ONE_HOST` says to Ray, for a process that had imported it before the variable was set."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes started inside the block, put back afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
