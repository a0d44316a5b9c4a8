"""Measure this machine: real training steps, scored windows and written texts of a study's own models.

As many processes measure at once as stages run at once in a study, because stages slow each other down; one of them
then repeats a step alone. Models are untrained and text is random, which the time of a step does not depend on. On a
CPU the processes' own time counts, so that what else the machine does makes no model look slow; how busy it was is
told.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from calm_bench.config import Experiment
from calm_bench.errors import RunError
from calm_bench.freed_memory import keep_freed_memory
from calm_bench.trusted_code import targets_in, trust_code
from pipelines.common.with_parent import end_with_parent
from pipelines.execution.environment import SAFE_PATH, environment
from pipelines.planning.calibration import ALONE, Calibration, Measured
from pipelines.planning.machines import Machine
from pipelines.study.stage_kind import STAGE_KINDS
from pipelines.study.workload import Speed, Workload

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier


SECONDS_A_WORKLOAD = 0.5
LONGEST_STEP_S = 3.0
"""Models whose steps are expected to take longer are not measured but scaled by FLOPs from those that are."""
MOST_WORKLOADS = 12
PATIENCE_S = 60.0
"""After so long on a busy machine, the models that have not been measured are left to be scaled from the others."""
TIMEOUT_S = 120.0
IMPORT_WAIT = 2.5
"""Time that passes while libraries are imported, of the process's own time: at most so much is due to the disk."""
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

Request = tuple[str, dict[str, Any], int]
"""The kind of a workload, its experiment as JSON and the size of its vocabulary, as they are sent to a process."""
_SHARE = "share"
"""Share of the time of a measurement in which its process had a core."""


class MeasuringFailed(RunError, RuntimeError):
    """A measuring process ended without an answer; the message holds its error."""


def worth_measuring(workloads: Sequence[Workload], machine: Machine) -> list[Workload]:
    """Those of ``workloads`` that are measured: their kinds can be, and they are small enough and not too many."""
    small = [
        workload
        for workload in {workload.identity: workload for workload in workloads}.values()
        if STAGE_KINDS.get(workload.kind).measure is not None
        and workload.flops_per_step / workload.training.gradient_accumulation / machine.flops_per_second
        <= LONGEST_STEP_S
    ]
    return small[:MOST_WORKLOADS]


def expected_seconds(workloads: Sequence[Workload], machine: Machine) -> float:
    """About how long :func:`measure` will take."""
    steps = sum(workload.flops_per_step / machine.flops_per_second for workload in workloads)
    return 8.0 + 2 * SECONDS_A_WORKLOAD * len(workloads) + 3 * steps


def measure(workloads: Sequence[Workload], machine: Machine) -> Calibration:
    """Measure ``workloads`` on this machine.

    Raises:
        MeasuringFailed: a process failed or gave no answer for two minutes.
    """
    processes = machine.parallelism if machine.device == "cpu" else 1
    context = multiprocessing.get_context("spawn")
    with environment(SAFE_PATH):
        # Starts a process that keeps account of such things.
        barrier = context.Barrier(processes)
    requests = [
        (workload.kind, workload.experiment.model_dump(mode="json"), workload.vocab_size) for workload in workloads
    ]
    workers = []
    for number in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        arguments = (theirs, barrier, requests, number, machine.device)
        worker = context.Process(target=_work, args=arguments, daemon=True)
        with environment(SAFE_PATH):
            worker.start()
        theirs.close()
        workers.append((worker, ours))
    models: dict[str, Measured] = {}
    shares, alone = [1.0], ALONE
    try:
        import_s = fmean(_answer(ours) for _, ours in workers)
        begun = time.monotonic()
        for workload in workloads:
            answers = [_answer(ours) for _, ours in workers]
            shares.append(fmean(answer.pop(_SHARE) for answer in answers))
            speed = Speed(**{name: fmean(each[name] for each in answers) for name in answers[0]})
            models[workload.identity] = Measured.of(workload, speed)
            if time.monotonic() - begun > PATIENCE_S:
                break
        else:
            alone = _answer(workers[0][1])
    finally:
        for worker, ours in workers:
            worker.kill()
            worker.join()
            ours.close()
    busy = 1.0 if machine.device == "cuda" else max(1.0, 1.0 / max(min(shares), 0.05))
    return Calibration(models, import_s=import_s, alone=min(1.0, alone), busy=busy)


def _answer(connection: Connection) -> Any:
    if not connection.poll(TIMEOUT_S):
        raise MeasuringFailed(f"this machine's speed could not be measured: no answer for {TIMEOUT_S:.0f} s")
    try:
        answer = connection.recv()
    except EOFError:
        answer = RuntimeError("the measuring process was lost")
    if isinstance(answer, Exception):
        raise MeasuringFailed(f"this machine's speed could not be measured: {answer}")
    return answer


def _work(connection: Connection, barrier: Barrier, requests: list[Request], number: int, device: str) -> None:
    """In a process of its own: import, then measure request after request with the others, then alone."""
    os.environ.update(THREADS)
    end_with_parent()
    try:
        begun, begun_cpu = time.perf_counter(), time.process_time()
        import torch

        import evals.evaluate  # noqa: F401 - what a stage imports takes its time too

        torch.set_num_threads(1)
        keep_freed_memory()
        own = time.process_time() - begun_cpu
        connection.send(min(time.perf_counter() - begun, IMPORT_WAIT * own))
        together: list[Speed] = []
        trust_code(*targets_in([experiment for _, experiment, _ in requests]))
        for request in requests:
            barrier.wait(TIMEOUT_S)
            begun, begun_cpu = time.perf_counter(), time.process_time()
            together.append(_speed(request, device))
            share = (time.process_time() - begun_cpu) / (time.perf_counter() - begun)
            connection.send({**asdict(together[-1]), _SHARE: share})
        barrier.wait(TIMEOUT_S)
        if number == 0:
            connection.send(_alone(requests, together, device))
    except Exception as error:
        connection.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _speed(request: Request, device: str) -> Speed:
    name, experiment, vocab_size = request
    kind = STAGE_KINDS.get(name)
    assert kind.workload is not None
    assert kind.measure is not None, f"stages of kind {name} are not measured"
    return kind.measure(kind.workload(Experiment.model_validate(experiment), vocab_size), device, SECONDS_A_WORKLOAD)


def _alone(requests: list[Request], together: list[Speed], device: str) -> float:
    """Time of the steps of the last request while the other processes rest, as a share of that with them."""
    if not requests:
        return 1.0
    return _speed(requests[-1], device).step / together[-1].step
