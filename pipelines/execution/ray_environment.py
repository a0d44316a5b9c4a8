"""What Ray and its processes find in their environment: where to listen and to keep files, which code to import."""

from __future__ import annotations

import os
import site
from pathlib import Path
from typing import Any

from pipelines.execution.executor import ExecutorError
from pipelines.execution.ray_train import THREADS
from pipelines.execution.same_code import ROOT
from pipelines.execution.worker_process import allocator_settings
from pipelines.store.provenance import PACKAGES
from pipelines.study.config import Execution

ONE_HOST = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable for whether nodes may join from other hosts; where they may not, it listens on loopback only."""

RAY_FOLDER = "RAY_TMPDIR"
"""Ray's variable for where its files go, in place of ``TMPDIR``."""
SOCKET_PATH = 107
"""The longest name of a socket that Linux takes, in bytes."""
LONGEST_SOCKET = "/ray/session_2025-01-31_23-59-59_999999_4194304/sockets/plasma_store.1"

_DRIVER = {
    # Its handler is installed after everybody else's and aborts the process three seconds after SIGTERM.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    # Ray publishes the last lines of a dead node's log to drivers. They stay in Ray's own log files.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # The interface of ``ray.train``.
    "RAY_TRAIN_V2_ENABLED": "1",
}
"""Variables that Ray reads when it is imported."""


def variables_for(execution: Execution) -> dict[str, str]:
    """What is set while Ray is imported and started; the processes of a private one inherit it."""
    if execution.address is not None:
        return _DRIVER
    return {
        **_DRIVER,
        # Nobody but this process talks to it, over loopback, where alone it listens: as on other systems, although
        # Linux could have clusters. Its servers run what they are sent, so all the machine's addresses will not do.
        ONE_HOST: "0",
        "RAY_AUTH_MODE": "disabled",
        # Where all processes of a job are told to end at once, its server ends first. Ray would end this process and
        # the workers a minute later, in the middle of a long step or of a large checkpoint.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A stage that declared no GPU must not see one, or its numbers would depend on where it lands.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        **THREADS,
        **allocator_settings(),
        **_import_path(),
        **short_folder(),
    }


def short_folder() -> dict[str, str]:
    """Where a private Ray's files go, if the usual place has too long a name for the sockets in them, or cannot be
    written to.

    Raises:
        ExecutorError: there is no other place.
    """
    usual = os.environ.get(RAY_FOLDER) or os.environ.get("TMPDIR") or "/tmp"
    is_short = len(os.fsencode(usual)) <= SOCKET_PATH - len(LONGEST_SOCKET)
    if is_short and (not os.path.exists(usual) or os.access(usual, os.W_OK | os.X_OK)):
        return {}
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            return {RAY_FOLDER: folder}
    why = f"the names of sockets in it would be longer than {SOCKET_PATH} bytes"
    raise ExecutorError(
        f"Ray cannot start with its files in {usual}: {'it cannot be written to' if is_short else why}. Set "
        f"{RAY_FOLDER} to a folder of yours whose path has at most {SOCKET_PATH - len(LONGEST_SOCKET)} bytes, or use "
        "--local, which needs no Ray"
    )


def _import_path() -> dict[str, str]:
    """PYTHONPATH by which workers find a checkout that this process imports without installation.

    Places with packages that are called as ours are left out: they come behind all others, as other code of users does
    (:class:`pipelines.execution.same_code.DriverCode`).
    """
    given = os.environ.get("PYTHONPATH", "")
    places = [place for place in given.split(os.pathsep) if place and not _has_ours(Path(place))]
    # Workers look in the interpreter's own folders by themselves. One that is only called like these, of a wheel that
    # was unpacked somewhere, they find by this alone.
    own = {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
    found = os.pathsep.join([*([] if ROOT in own else [str(ROOT)]), *places])
    return {"PYTHONPATH": found} if found != given else {}


def _has_ours(folder: Path) -> bool:
    return any((folder / name / "__init__.py").exists() or (folder / f"{name}.py").exists() for name in PACKAGES)


def travelling_code() -> dict[str, Any]:
    """A runtime environment that brings the three packages to nodes where they are not installed."""
    packages = [str(ROOT / name) for name in PACKAGES]
    variables = {**THREADS, **allocator_settings(), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
    return {"py_modules": packages, "env_vars": variables}
