"""Every process of a run has the driver's code: how a call is sent to a worker, and what refuses it there.

Ray would put the folder in which the driver was started before all else on the path of its workers, where a user's
``statistics.py`` or ``evals/`` replaced the standard library's and ours. It does not where workers have a working
directory of their own (:mod:`pipelines.execution.ray_instance`); here that folder is put behind all others.
"""

from __future__ import annotations

import functools
import os
import pickle
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import calm_bench
from calm_bench.source_digest import own_roots
from calm_bench.working_directory import leave_removed, working_directory
from pipelines.execution.executor import ExecutorError
from pipelines.store.provenance import code_digest

ROOT = Path(calm_bench.__file__).resolve().parent.parent
"""The folder that holds the driver's copy of the packages."""


@dataclass(frozen=True)
class DriverCode:
    """What a worker must have as the driver has it."""

    digest: str
    root: str
    folder: str
    """Where the driver was started, from which relative paths count."""
    late: tuple[str, ...]
    """Folders and archives in which users keep modules of their own: those in which the driver finds or has found some,
    in its order, and where it was started."""

    @classmethod
    def here(cls) -> DriverCode:
        """The code of this process."""
        folder = str(working_directory())
        return cls(code_digest(), str(ROOT), folder, tuple(dict.fromkeys([*own_roots(), folder])))

    def join(self) -> None:
        """Let this process find the users' modules and relative paths, behind all else, and check its code.

        Raises:
            ExecutorError: as :meth:`check`.
        """
        # On another node it may not be there, or not for this user.
        with suppress(OSError):
            os.chdir(self.folder)
        leave_removed()
        sys.path += [place for place in self.late if place not in sys.path]
        self.check()

    def check(self) -> None:
        """
        Raises:
            ExecutorError: this process has other code.
        """
        if code_digest() != self.digest:
            here = Path(calm_bench.__file__).resolve().parent.parent
            raise ExecutorError(
                f"the worker on {socket.gethostname()} has other code of calm-bench (in {here}) than this study's "
                f"driver (in {self.root}): install the same version on all nodes. If the code was changed while the "
                "study ran, the same command goes on with the new one"
            )


def pickled(function: Callable[..., Any], *arguments: Any) -> bytes:
    """``function(*arguments)`` for :func:`call_checked` in a worker."""
    from ray import cloudpickle

    call: bytes = cloudpickle.dumps(functools.partial(function, *arguments))
    return call


def call_checked(code: DriverCode, call: bytes) -> Any:
    """In a worker: do ``call`` if this process has the driver's code. The refusal is returned: Ray would wrap it.

    Args:
        call: as :func:`pickled` gives it. It is read only then: other code might read it otherwise.
    """
    try:
        code.join()
    except ExecutorError as error:
        return error
    return pickle.loads(call)()
