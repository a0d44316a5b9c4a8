"""Every process of a run has the driver's code: how a call is sent to a worker, and what refuses it there."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import calm_bench
from pipelines.execution.executor import ExecutorError
from pipelines.store.provenance import PACKAGES, code_digest

ROOT = Path(calm_bench.__file__).resolve().parent.parent
"""The folder that holds the driver's copy of the packages."""


@dataclass(frozen=True)
class DriverCode:
    """What a worker must have as the driver has it."""

    digest: str
    root: str
    late: tuple[str, ...]
    """Folders in which users keep modules of their own: where the driver was started, and its script's."""

    @classmethod
    def here(cls) -> DriverCode:
        """The code of this process."""
        script = os.path.dirname(os.path.realpath(sys.argv[0])) if sys.argv and sys.argv[0] else ""
        known = {os.path.abspath(path or os.curdir) for path in sys.path}
        late = [os.getcwd(), *([script] if script in known else [])]
        return cls(code_digest(), str(ROOT), tuple(dict.fromkeys(late)))

    def join(self) -> None:
        """Let this process find the users' modules and relative paths, behind all else, and check its code.

        Raises:
            ExecutorError: as :meth:`check`.
        """
        if os.path.isdir(self.late[0]):
            os.chdir(self.late[0])
        sys.path += [folder for folder in self.late if folder not in sys.path]
        self.check()

    def packages(self) -> dict[str, str]:
        """Where each of the packages is."""
        return {name: os.path.join(self.root, name) for name in PACKAGES}

    def sent(self, function: Callable[..., Any], *arguments: Any) -> bytes:
        """``function(*arguments)`` for a worker, which does it only if its code is this one."""
        from ray import cloudpickle

        # Pickled apart: it can be read only where our packages can be imported.
        call = cloudpickle.dumps(functools.partial(function, *arguments))
        whole: bytes = cloudpickle.dumps(functools.partial(_checked, self, call))
        return whole

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


def _checked(code: DriverCode, call: bytes) -> Any:
    """In the worker: as :meth:`DriverCode.sent`; the refusal is returned, since Ray would wrap it."""
    import pickle

    try:
        code.check()
    except ExecutorError as error:
        return error
    return pickle.loads(call)()
