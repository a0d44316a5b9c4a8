"""A training by several workers, through Ray Train.

The stage's own task supervises: it holds the lease, asks for the workers and passes a wish to stop on to them. Each
worker runs the stage as a single process would, in a process group that :mod:`calm_bench.training.parallel` knows how
to share; the first one's result is the stage's. Nothing is tried again here: a failure of any worker ends them all, and
the study goes on from the checkpoint.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

from calm_bench.kept_folders import is_gone, keeping
from calm_bench.training_options import TrainingOptions
from pipelines.execution.failures import WorkerFailed, kernel_kills
from pipelines.execution.same_code import DriverCode
from pipelines.execution.worker_group import WorkerGroup
from pipelines.execution.worker_process import StopFiles, allocator_settings, prepare_process
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import StageKind

STOP = "stop"
"""In the stage's work folder, which all workers see: raised when they should end."""
SAVED = "saved"
"""Beside it: raised by the first worker when it has ended for :data:`STOP`."""
POLL_S = 0.25
RELAY_S = 5.0
"""So long the wish of who ends a job takes at most from the stage's task to its workers."""
ANSWER_S = 2.0
"""So long the answer of workers that have saved and ended takes at most, where Ray is there to carry it."""
SAVE_S = 12.0
"""So long workers may go on saving when their node's Ray has ended."""
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""One thread per worker; Ray itself would give as many as the stage has CPUs."""

_SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # How soon a lost worker is noticed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Workers import torch first, many at once on a busy machine.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # Custom heads are imported from where the study was started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
PEER = "LostPeer"
"""What a worker that could not reach another one calls its failure; the other one's is the cause."""
_LOST_PEER = ("gloo", "closed by peer", "reset by peer", "broken pipe", "nccl", "process group")


@dataclass(frozen=True)
class _Job:
    """What every worker is told."""

    stage: Stage
    kind: StageKind
    inputs: Mapping[str, Path]
    folder: Path
    device: str
    training: TrainingOptions
    strategy: Literal["ddp", "fsdp"]
    code: DriverCode


def run_with_workers(
    group: WorkerGroup,
    stage: Stage,
    kind: StageKind,
    inputs: Mapping[str, Path],
    folder: Path,
    context: StageContext,
) -> tuple[dict[str, Any], str]:
    """As ``kind.run``, by the workers of ``group``; for a process that is connected to Ray.

    Returns:
        The result, and the name of the first worker's device.

    Raises:
        Interrupted: ``context.stop()`` turned true, while they worked or before there was room for them.
        WorkerFailed: a worker failed or was lost.
    """
    told = (context.device, context.training, group.strategy)
    job = _Job(stage, kind, inputs, folder, *told, DriverCode.here())
    kills = kernel_kills()
    with _relayed(context.stop, folder / STOP):
        node_with_capacity(group, stage, context.stop, this_node() if group.on_one_node else None)
        answer = _while_ray_lives(lambda: _fit(group, job, kills), stage, folder / SAVED, context.stop)
    if "interrupted" in answer:
        raise Interrupted(answer["interrupted"])
    return answer["result"], answer["device"]


def _while_ray_lives(
    fit: Callable[[], dict[str, Any]], stage: Stage, saved: Path, stop: Callable[[], bool]
) -> dict[str, Any]:
    """What ``fit`` returns, in a thread that is left behind where Ray has ended and a stop is asked for.

    Who ends a job may tell Ray's servers as well as the workers. These save and end, but their answer arrives nowhere,
    and to wait for it takes the minute for which Ray hopes that its servers come back.

    Args:
        saved: raised by the first worker when it has saved for a stop.

    Raises:
        Interrupted: the workers have saved, or Ray has ended and they had time to.
    """
    answer: Future[dict[str, Any]] = Future()

    def work() -> None:
        try:
            answer.set_result(fit())
        except BaseException as error:  # handed on
            answer.set_exception(error)

    raylet, last = os.getppid(), inf
    saved.unlink(missing_ok=True)
    threading.Thread(target=work, name="training", daemon=True).start()
    try:
        while not wait([answer], POLL_S).done:
            if stop():
                now = time.monotonic()
                last = min(last, now + ANSWER_S if saved.exists() else now + SAVE_S if os.getppid() != raylet else inf)
            if time.monotonic() > last:
                raise Interrupted(f"{stage} was stopped together with Ray")
        return answer.result()
    finally:
        saved.unlink(missing_ok=True)


def _fit(group: WorkerGroup, job: _Job, kills_before: int) -> dict[str, Any]:
    # Before the import: one of them says which interface ``ray.train`` has.
    os.environ.update(_SETTINGS)
    import ray.train
    from ray.train.torch import TorchTrainer

    from pipelines.execution.process_group import OwnAddress

    # Its annotations are those of the older interface.
    train: Any = ray.train
    scaling = train.ScalingConfig(
        num_workers=group.size,
        use_gpu=group.gpus > 0,
        resources_per_worker=group.resources,
        placement_strategy="STRICT_PACK" if group.on_one_node else "PACK",
        label_selector=_labels(this_node()) if group.on_one_node else None,
    )
    # Workers agree over gloo, so that hosts need not wait for their GPUs.
    backend = OwnAddress(backend="cpu:gloo,cuda:nccl" if group.gpus else "gloo")
    with tempfile.TemporaryDirectory(prefix="calm-bench-") as notes:
        run: Any = train.RunConfig(
            name=job.stage.name,
            # Ray's own notes: what a stage keeps is in its work folder.
            storage_path=notes,
            failure_config=train.FailureConfig(max_failures=0, max_preemption_failures=0),
            worker_runtime_env={"env_vars": {**THREADS, **allocator_settings()}},
            logging_config=train.LoggingConfig(log_level="ERROR"),
        )
        work: Any = _work
        trainer: Any = TorchTrainer(
            work, train_loop_config={"job": job}, scaling_config=scaling, run_config=run, torch_config=backend
        )
        try:
            answer: dict[str, Any] = trainer.fit().return_value
        except train.ControllerError as error:
            raise lost_worker(f"Ray Train failed: {error.controller_failure}", error, kills_before) from error
        except train.TrainingFailedError as error:
            failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
            raise worst(failures, kills_before) or lost_worker(str(error), error, kills_before) from error
        return answer


def _work(config: dict[str, Any]) -> dict[str, Any]:
    """In every worker."""
    import ray.train

    from pipelines.execution.process_group import sigterm

    job: _Job = config["job"]
    os.environ.update(THREADS)
    job.code.join()
    stop = _Stop(job.folder, sigterm)
    try:
        from calm_bench.devices import device_name
        from calm_bench.training.parallel import data_parallel

        device = prepare_process(job.kind, job.device)
        context = StageContext(device, stop, job.training)
        with keeping(job.folder), data_parallel(job.strategy):
            result = job.kind.run(job.stage, job.inputs, job.folder, context)
        return {"result": result, "device": device_name(device)}
    except Interrupted as error:
        if ray.train.get_context().get_world_rank() == 0 and stop.asked():
            (job.folder / SAVED).touch()
        return {"interrupted": str(error)}
    except Exception as error:
        failed = WorkerFailed.of(error)
        if failed.cause != "memory" and is_lost_peer(error):
            failed = WorkerFailed(PEER, failed.text, failed.details, "transient")
        raise failed from None


class _Stop:
    """``stop()`` of a worker.

    Who ends a job tells all of it (SIGTERM), and the stage's task passes that on, so that all workers save as one. A
    worker that is told alone ends as a lost one would: the others end with it, and the study goes on.
    """

    def __init__(self, folder: Path, sigterm: threading.Event) -> None:
        self.asked = StopFiles(folder / STOP)
        self._folder = folder
        self._sigterm = sigterm
        self._last = inf

    def __call__(self) -> bool:
        """
        Raises:
            WorkerFailed: nobody has passed it on for :data:`RELAY_S` seconds.
        """
        if self.asked() or is_gone(self._folder):
            return True
        if self._sigterm.is_set():
            self._last = min(self._last, time.monotonic() + RELAY_S)
        if time.monotonic() > self._last:
            raise WorkerFailed("Terminated", "a worker was told to end (SIGTERM)", "", "transient")
        return False


def is_lost_peer(error: Exception) -> bool:
    """Whether a worker failed because another one did."""
    import torch.distributed as dist

    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(known in text for known in _LOST_PEER)
    )


def worst(failures: Mapping[int, BaseException], kills_before: int) -> WorkerFailed | None:
    """The failure that brought the others about."""
    own = [error for _, error in sorted(failures.items()) if isinstance(error, WorkerFailed) and error.name != PEER]
    if own:
        return own[0]
    for rank, error in sorted(failures.items()):
        if not isinstance(error, WorkerFailed):
            return lost_worker(f"worker {rank} was lost: {error}", error, kills_before)
    return next((error for error in failures.values() if isinstance(error, WorkerFailed)), None)


def lost_worker(text: str, error: BaseException, kills_before: int) -> WorkerFailed:
    """What Ray tells of a worker that gave no answer.

    Args:
        kills_before: :func:`kernel_kills` when it began.
    """
    import ray.exceptions as of_ray

    first_line = next(iter(text.strip().splitlines()), "")
    inner = getattr(error, "health_check_failure", error)
    if isinstance(inner, of_ray.OutOfMemoryError) or kernel_kills() > kills_before:
        return WorkerFailed("OutOfMemoryError", first_line, text, "memory")
    return WorkerFailed("WorkerLost", first_line, text, "transient")


def node_with_capacity(group: WorkerGroup, stage: Stage, stop: Callable[[], bool], node: str | None) -> str:
    """Return when all workers fit at once: the node where the first one would be.

    Ray Train itself would wait deaf, and give up after a while.

    Args:
        node: the only one that counts.

    Raises:
        Interrupted: ``context.stop()`` turned true.
    """
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    placement = placement_group(
        [group.resources] * group.size,
        strategy="STRICT_PACK" if group.on_one_node else "PACK",
        bundle_label_selector=None if node is None else [_labels(node)] * group.size,
    )
    try:
        # Asked for its state: the group's own wait() takes whole seconds only, and would be at it without a pause.
        while (found := placement_group_table(placement))["state"] != "CREATED":
            if stop():
                raise Interrupted(f"{stage} was stopped before there was room for {group.size} workers")
            time.sleep(POLL_S)
        return str(found["bundles_to_node_id"][0])
    finally:
        remove_placement_group(placement)


def this_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _labels(node: str) -> dict[str, str]:
    return {"ray.io/node-id": node}


@contextmanager
def _relayed(stop: Callable[[], bool], flag: Path) -> Iterator[None]:
    """Raise ``flag`` as soon as ``stop()`` is true."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if stop():
                flag.touch()
                return

    flag.unlink(missing_ok=True)
    watcher = threading.Thread(target=watch, name="stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        flag.unlink(missing_ok=True)
