"""Parts of a network that are compiled one by one while a model is trained on a GPU.

A layer compiled by itself is one short graph that all layers of a model share, where a model compiled whole takes
minutes to trace and is traced anew for every depth. What a user's head does between such parts stays as it is.

Compiled code fuses operations and so rounds otherwise: a CPU, where results keep their bits, runs it only if asked to.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

VARIABLE = "CALM_BENCH_COMPILE"
"""``0``: nothing is compiled. ``1``: on a CPU too. Unset: on a GPU, if all that compiles for it is there."""

_backend: ContextVar[str | Callable[..., object] | None] = ContextVar("backend", default=None)


def region(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, compiled inside :func:`compiling`; one graph for equal shapes.

    It draws no random numbers and waits for nothing.
    """
    compiled: dict[object, Callable[P, T]] = {}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        # The order matters: what is being traced already takes part in the graph around it.
        if torch.compiler.is_compiling() or (backend := _backend.get()) is None:
            return function(*args, **kwargs)
        if backend not in compiled:
            compiled[backend] = torch.compile(function, backend=backend, dynamic=False)
        try:
            return compiled[backend](*args, **kwargs)
        except RuntimeError as error:
            # Whether the compiler or what it made has failed, torch has no public class that tells.
            error.add_note(f"this happened in compiled code; {VARIABLE}=0 trains without compiling")
            raise

    return call


def backend_for(device: str) -> str | None:
    """What a training on ``device`` compiles its regions with, as :data:`VARIABLE` and the machine have it.

    None: it runs them as they are. Otherwise graphs of trainings before are forgotten, since torch compiles no function
    for more than a few shapes; and what several workers compile is what one does.
    """
    wanted, on_gpu = os.environ.get(VARIABLE, ""), device.startswith("cuda")
    if wanted == "0" or (not on_gpu and wanted != "1"):
        return None
    # On a GPU too: Triton builds what launches its kernels with a C compiler.
    named, usual = (os.environ.get("CC"), ("cc", "gcc", "clang")) if on_gpu else (os.environ.get("CXX"), ("g++",))
    if not any(shutil.which(name) for name in ([named] if named else usual)) or not _has_headers():
        return None
    if on_gpu and not _has_triton():
        return None
    torch.compiler.reset()
    # Of a model whose gradients workers average, torch would cut each graph where the messages end, so that they could
    # be sent sooner. A layer is short already, and its kernels would be others than those of a single worker.
    torch._dynamo.config.optimize_ddp = False
    return "inductor"


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _has_headers() -> bool:
    """Whether Python's own are here, against which kernels are built; many systems have them in a package apart."""
    places = {sysconfig.get_path("include"), sysconfig.get_path("include", "posix_prefix")}
    return any(Path(place, "Python.h").is_file() for place in places)


def compiles_regions() -> bool:
    """Whether regions are compiled here, each once for every shape, as they are inside :func:`compiling`."""
    return _backend.get() is not None


def computed_again_alike() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For ``torch.utils.checkpoint``: around what is computed now, and around what is computed again, which is compiled
    as it is now wherever the backward pass runs. A GPU's runs outside :func:`compiling`, in a thread of its own."""
    return nullcontext(), compiling(_backend.get())


@contextmanager
def compiling(backend: str | Callable[..., object] | None) -> Iterator[None]:
    """Compile regions inside the block; ``backend`` is torch.compile's, None for none."""
    before = _backend.set(backend)
    try:
        yield
    finally:
        _backend.reset(before)
