"""The Ray of one executor: a private instance on loopback, or a cluster's."""

from __future__ import annotations

import logging
import math
import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from calm_bench.devices import available_cpus
from pipelines.execution.descendants import end_all
from pipelines.execution.executor import ExecutorError
from pipelines.execution.ray_train import THREADS
from pipelines.execution.same_code import ROOT
from pipelines.store.provenance import PACKAGES
from pipelines.study.config import Execution

ONE_HOST = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable for whether nodes may join from other hosts; where they may not, it listens on loopback only."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Results are small and artifacts travel through the store, so Ray's usual third of the memory is not needed."""

RAY_FOLDER = "RAY_TMPDIR"
"""Ray's variable for where its files go, in place of ``TMPDIR``."""
SOCKET_PATH = 107
"""The longest name of a socket that Linux takes, in bytes."""
LONGEST_SOCKET = "/ray/session_2025-01-31_23-59-59_999999_4194304/sockets/plasma_store.1"

LISTENER_S = 10.0
"""How long an address is tried at which nobody listens."""
START_ATTEMPTS = 3
"""Ray gives its own node half a minute, which can be too little on a very busy machine."""
CONNECT_S = 60.0
"""After so long whoever listens there is no Ray; that one of ours takes longer happens on very busy machines only."""

_DRIVER = {
    # Its handler is installed after everybody else's and aborts the process three seconds after SIGTERM.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    # What is published to drivers: of a node that died, the last lines of its log. They stay in Ray's own log files.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # Which interface ``ray.train`` has.
    "RAY_TRAIN_V2_ENABLED": "1",
}
"""Variables that Ray reads when it is imported."""


class RayInstance:
    """Starts Ray with the first task, and does all that is asked of it in one thread.

    A thread of its own, so that the main one hears signals while Ray starts; one for all of Ray's life, because its
    processes are told to die with the thread that made them.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._tasks: queue.SimpleQueue[tuple[Callable[[], None], Callable[[ExecutorError], None]] | None]
        self._tasks = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    def do(self, task: Callable[[], None], refuse: Callable[[ExecutorError], None]) -> None:
        """Have ``task`` done once Ray has started, after those that were given before. Returns at once.

        Args:
            refuse: called instead of ``task`` where Ray cannot be started or used as configured.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
            self._thread.start()
            if self._execution.address is not None:
                timer = threading.Timer(CONNECT_S, self._give_up)
                timer.daemon = True
                timer.start()
        self._tasks.put((task, refuse))

    @property
    def is_ready(self) -> bool:
        """Whether it has started and has what a stage needs."""
        return self._ready.is_set()

    def nodes(self) -> list[dict[str, float]]:
        """What each living node has of each resource; for a Ray that has started."""
        import ray

        return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]

    def total(self, resource: str) -> float:
        """What all nodes together have of ``resource``; for a Ray that has started."""
        return sum(node.get(resource, 0.0) for node in self.nodes())

    def end(self) -> None:
        """End it; returns when its processes have ended.

        One that is still starting, which nothing can interrupt, is ended as soon as it has started.
        """
        if self._thread is None:
            return
        self._tasks.put(None)
        if self.is_ready:
            self._thread.join()

    def _live(self) -> None:
        error = self._start()
        while (item := self._tasks.get()) is not None:
            task, refuse = item
            if error is None:
                task()
            else:
                refuse(error)
        self._ready.clear()
        if error is None:
            self._shut_down()

    def _give_up(self) -> None:
        """Refuse what waits for a cluster that does not answer; Ray's own attempts cannot be interrupted."""
        if self.is_ready:
            return
        silent = ExecutorError(
            f"Ray at {self._execution.address} does not answer: something listens there, and gave no sign of being a "
            f"cluster within {CONNECT_S:.0f} s"
        )
        with suppress(queue.Empty):
            while (item := self._tasks.get_nowait()) is not None:
                item[1](silent)
            # Its thread is to end too, if it ever comes back.
            self._tasks.put(None)

    def _start(self) -> ExecutorError | None:
        """Start Ray and see that it has what a stage needs; what is in the way, if something is."""
        execution = self._execution
        try:
            with _environment(_variables(execution)):
                _connect(execution)
        except ExecutorError as error:
            return error
        except BaseException as error:
            where = f"at {execution.address}" if execution.address else "on this machine"
            return ExecutorError(f"Ray did not start {where}: {error}. --local runs the same study in this process.")
        if execution.address is None and (lacking := _lacking(execution, self.total)) is not None:
            self._shut_down()
            return ExecutorError(lacking)
        self._ready.set()
        return None

    def _shut_down(self) -> None:
        import ray

        workers = [] if self._execution.address else _started_by_raylet()
        ray.shutdown()
        # They notice that their raylet is gone, but those that only just start look for it for half a minute.
        end_all(workers)


def _connect(execution: Execution) -> None:
    """Start a private Ray, or connect to a cluster's.

    Raises:
        ExecutorError: it is known before that this cannot be.
    """
    import ray

    if ray.is_initialized():
        raise ExecutorError("Ray is already running in this process: run the study where it is not")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if execution.address is None:
        here = ray.util.get_node_ip_address()
        if not here.startswith("127."):
            raise ExecutorError(
                f"a private Ray would listen on {here}, since this process imported Ray before the study began: set "
                f"the environment variable {ONE_HOST}=0 before that"
            )
        options |= {
            "num_cpus": max(available_cpus(), math.ceil(execution.workers * execution.cpus_per_stage)),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        _wait_for_listener(execution.address, ray.util.get_node_ip_address())
    # Not left unset: Ray would then join an instance that somebody else started on this machine.
    address = execution.address or "local"
    for attempt in range(START_ATTEMPTS):
        try:
            _init(execution, address, options)
            return
        except Exception:
            ray.shutdown()
            if execution.address is not None:
                raise
            end_all(_half_started())
            if attempt + 1 == START_ATTEMPTS:
                raise


def _init(execution: Execution, address: str, options: dict[str, Any]) -> None:
    import ray

    with tempfile.TemporaryDirectory(prefix="calm-bench-") as empty:
        environment: dict[str, Any] = {} if execution.address is None else _travelling_code()
        try:
            # Where there is a working directory, Ray does not put the driver's before all else on the workers' path.
            ray.init(address, runtime_env={**environment, "working_dir": empty}, **options)
        except ValueError as error:
            if execution.address is None or "runtime env" not in str(error):
                raise
            # A job that was submitted with a working directory of its own keeps that one.
            ray.init(address, runtime_env=environment, **options)


def _wait_for_listener(address: str, own_address: str) -> None:
    """Return when somebody listens at ``address``: Ray itself would try for minutes.

    Args:
        own_address: what Ray makes of a loopback address.

    Raises:
        ExecutorError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        # A name of Ray's own, such as ``auto``.
        return
    is_loopback = host == "localhost" or host.startswith("127.") or host == "::1"
    tried = own_address if is_loopback and not address.startswith("ray://") else host
    deadline = time.monotonic() + LISTENER_S
    while True:
        try:
            socket.create_connection((tried, int(port)), timeout=max(1.0, deadline - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                means = f" ({address} means this machine's address to Ray)" if tried != host else ""
                alone = f"; if it listens on {host} only, set {ONE_HOST}=0 for the study too" if tried != host else ""
                raise ExecutorError(
                    f"no Ray cluster answers at {tried}:{port}{means}: {error}. Is it running, and does it listen "
                    f"there{alone}? Without execution.address the study starts a Ray of its own."
                ) from error
            time.sleep(0.2)


def _lacking(execution: Execution, total: Callable[[str], float]) -> str | None:
    """What a private Ray has too little of for one stage, in words."""
    from pipelines.execution.worker_group import GIB

    workers = execution.workers
    needs = {
        "CPU": (workers * execution.cpus_per_stage, "cpus_per_stage"),
        "GPU": (workers * execution.gpus_per_stage, "gpus_per_stage"),
        "memory": (workers * (execution.memory_per_stage or 0.0) * GIB, "memory_per_stage"),
    }
    for resource, (needed, setting) in needs.items():
        if (available := total(resource)) < needed:
            unit, name = (GIB, "GiB of memory") if resource == "memory" else (1, resource)
            return (
                f"a stage needs {needed / unit:.4g} {name} and Ray found {available / unit:.4g}: lower "
                f"execution.{setting}{' or execution.workers' if workers > 1 else ''}, or give the address of a "
                "cluster in execution.address"
            )
    return None


def _half_started() -> list[psutil.Process]:
    """Servers of a Ray whose start failed."""
    import ray

    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(word.startswith(os.path.dirname(ray.__file__)) for word in child.cmdline()):
                found.append(child)
    return found


def _started_by_raylet() -> list[psutil.Process]:
    """The workers and agents of a private Ray."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.name() == "raylet":
                found += child.children(recursive=True)
    return found


def _variables(execution: Execution) -> dict[str, str]:
    """What is set while Ray is imported and started; the processes of a private one inherit it."""
    if execution.address is not None:
        return _DRIVER
    return {
        **_DRIVER,
        # Nobody but this process talks to it, over loopback, where alone it listens: as on other systems, although
        # Linux could have clusters. Its servers run what they are sent, so all the machine's addresses will not do.
        ONE_HOST: "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A stage that declared no GPU must not see one, or its numbers would depend on where it lands.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        **THREADS,
        **_import_path(),
        **_short_folder(),
    }


def _short_folder() -> dict[str, str]:
    """Where a private Ray's files go, if the usual place has too long a name for the sockets in them.

    Raises:
        ExecutorError: there is no other place.
    """
    usual = os.environ.get(RAY_FOLDER) or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(usual)) <= SOCKET_PATH - len(LONGEST_SOCKET):
        return {}
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            return {RAY_FOLDER: folder}
    raise ExecutorError(
        f"Ray cannot start with its files in {usual}: the names of sockets in it would be longer than {SOCKET_PATH} "
        f"bytes. Set {RAY_FOLDER} to a folder of at most {SOCKET_PATH - len(LONGEST_SOCKET)}, or use --local, which "
        "needs no Ray"
    )


def _import_path() -> dict[str, str]:
    """PYTHONPATH by which workers find a checkout that this process imports without installation."""
    if ROOT.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def _travelling_code() -> dict[str, Any]:
    """A runtime environment that brings the three packages to nodes where they are not installed."""
    packages = [str(ROOT / name) for name in PACKAGES]
    return {"py_modules": packages, "env_vars": {**THREADS, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}}


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
