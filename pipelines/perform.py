"""Carry out one stage: what a worker does, in this process and on Ray alike."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calm_bench.atomic import write_bytes
from pipelines.lease import Lease
from pipelines.provenance import provenance
from pipelines.stage import Interrupted, Stage, StageKind
from pipelines.store import Store

WAIT_S = 0.2


class StageError(Exception):
    """A stage failed. Carries text only, so that it crosses process borders whatever the cause was."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message, details)
        self.message = message
        self.details = details
        """The traceback in the worker."""

    def __str__(self) -> str:
        return self.message


class StopFile:
    """``stop()`` for workers in other processes: true once the file exists. Looked at a few times a second only."""

    def __init__(self, path: Path, every_s: float = 0.25) -> None:
        self._path = path
        self._every_s = every_s
        self._next = 0.0
        self._stopped = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._stopped and now >= self._next:
            self._next = now + self._every_s
            self._stopped = self._path.exists()
        return self._stopped


def perform(store: Store, stage: Stage, kind: StageKind, device: str, stop: Callable[[], bool]) -> dict[str, Any]:
    """The result of ``stage``: from the store, from another process that works on it, or computed and published here.

    Args:
        device: ``auto`` (a GPU if this process sees one), ``cpu`` or ``cuda``.
        stop: true when the stage should save its state and end.

    Raises:
        Interrupted: ``stop()`` turned true.
        StageError: the stage raised; the message says what and where the traceback is kept.
    """
    while not store.is_done(stage):
        if stop():
            raise Interrupted(f"{stage} was stopped before it started")
        lease = store.claim(stage)
        if lease is None:
            time.sleep(WAIT_S)
            continue
        with lease:
            # It may have been published between the look and the claim.
            if store.is_done(stage):
                break
            try:
                return _run(store, stage, kind, device, _either(stop, lease))
            except Interrupted:
                # A lease is lost when this process slept for long; whoever has it now will finish the stage.
                if not lease.lost or stop():
                    raise
    return store.result(stage)


def _either(stop: Callable[[], bool], lease: Lease) -> Callable[[], bool]:
    return lambda: stop() or lease.lost


def _run(store: Store, stage: Stage, kind: StageKind, device: str, stop: Callable[[], bool]) -> dict[str, Any]:
    work = store.work_folder(stage)
    try:
        device = _prepare(kind, device)
        work = store.open_work(stage, device)
        inputs = {name: store.folder(source) for name, source in stage.inputs.items()}
        started = time.perf_counter()
        result = kind.run(stage, inputs, work, device, stop)
        wall_time_s = time.perf_counter() - started
        record = provenance(device, stage.config.get("seed"), wall_time_s, result.get("training_flops"))
        return store.publish(stage, result, record, kind.scratch)
    except Interrupted:
        raise
    except Exception as error:
        details = traceback.format_exc()
        where = ""
        if work.is_dir():
            write_bytes(work / "error.txt", details.encode())
            where = f" (traceback in {work / 'error.txt'})"
        name = type(error).__name__
        raise StageError(f"{stage}: {name}: {error}{where}", details) from error


def _prepare(kind: StageKind, device: str) -> str:
    """One thread per worker, whoever runs it: parallel stages do not fight for cores and sums have one order."""
    if not kind.uses_torch:
        return "cpu"
    import torch

    torch.set_num_threads(1)
    if not kind.uses_device:
        return "cpu"
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("no GPU is visible to this worker: set execution.gpus_per_stage=1, or execution.device=cpu")
    return device
