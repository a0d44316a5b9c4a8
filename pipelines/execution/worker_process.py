"""What any process does around a stage: import what it needs, choose its device, hear the wish to stop."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from calm_bench.devices import set_tf32
from calm_bench.freed_memory import keep_freed_memory
from pipelines.store.flags import Flag
from pipelines.study.stage_kind import StageKind

LOOK_S = 1.0
"""How long a look for stop flags is waited for, which a server that is away would hold up for minutes."""


class StopFiles:
    """``stop()`` for workers in other processes: true once one of the flags is raised.

    They are looked for every so often only: a few times a second on a file system. A training asks between two steps
    and must not stand still while an object store is away, so nobody waits longer than :data:`LOOK_S` for a look.
    """

    def __init__(self, *flags: Flag, every_s: float = 0.25) -> None:
        self._flags = flags
        self._every_s = every_s
        self._next = 0.0
        self._stopped = False
        self._look: threading.Thread | None = None

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._stopped and now >= self._next and (self._look is None or not self._look.is_alive()):
            self._next = now + self._every_s
            self._look = threading.Thread(target=self._find, name="stop flags", daemon=True)
            self._look.start()
            self._look.join(LOOK_S)
        return self._stopped

    def _find(self) -> None:
        self._stopped = any(flag.exists() for flag in self._flags)


@contextmanager
def hearing_sigterm() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGTERM ends nothing: the function that is given turns true.

    Who ends a job (Slurm, Kubernetes, a node that is taken away) sends it to workers too, and leaves them a while to
    save what they have. Outside the main thread, where Python allows no handlers, it never turns true.
    """
    heard = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        heard.set()

    if threading.current_thread() is not threading.main_thread():
        yield heard.is_set
        return
    before = signal.signal(signal.SIGTERM, handle)
    # Servers of Ray that are kept from hearing it (deploy/slurm) hand that on to workers, and these to all they start.
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield heard.is_set
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGTERM, before)


def import_modules(kind: StageKind) -> None:
    """Import what stages of ``kind`` need; in a fresh process torch and all that follows take seconds."""
    if kind.uses_torch:
        import torch  # noqa: F401
    if kind.get_ready is not None:
        kind.get_ready()


def allocator_settings() -> dict[str, str]:
    """Environment in which torch's memory on a GPU grows where it lies, before it is initialised there.

    Blocks of a fixed size leave gaps, which decide where most of a GPU is filled. What the user has set stays.
    """
    if any(name in os.environ for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")):
        return {}
    return {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


def prepare_process(kind: StageKind, device: str) -> str:
    """The device that ``device`` means here.

    One thread per worker, whoever runs it: parallel stages do not fight for cores and sums have one order.
    """
    if not kind.uses_torch:
        return "cpu"
    os.environ.update(allocator_settings())
    keep_freed_memory()
    import_modules(kind)
    import torch

    torch.set_num_threads(1)
    if not kind.uses_device:
        return "cpu"
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("no GPU is visible to this worker: set execution.gpus_per_stage=1, or execution.device=cpu")
    if device == "cuda":
        # What an earlier stage of this process left in circles, Python would look for when its own memory runs short.
        gc.collect()
        torch.cuda.empty_cache()
    # A worker of Ray may have trained before, and may do so again.
    set_tf32(device, not kind.data_parallel)
    return device
