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
from collections.abc import Callable
from contextlib import suppress
from resource import RLIM_INFINITY, RLIMIT_NPROC, getrlimit
from typing import Any

import psutil

from calm_bench.cgroups import process_limit
from calm_bench.devices import available_cpus
from pipelines.execution.descendants import end_all
from pipelines.execution.environment import environment
from pipelines.execution.executor import ExecutorError
from pipelines.execution.ray_environment import ONE_HOST, travelling_code, variables_for
from pipelines.study.config import Execution

OBJECT_STORE_BYTES = 100 * 2**20
"""Results are small and artifacts travel through the store, so Ray's usual third of the memory is not needed."""

PROCESSES = 500
"""Processes and threads, above which it is not for want of them that Ray does not start on a small machine."""
LISTENER_S = 10.0
"""How long an address is tried at which nobody listens."""
START_ATTEMPTS = 3
"""Ray gives its own node half a minute, which can be too little on a very busy machine."""
CONNECT_S = 60.0
"""After so long whoever listens there is no Ray; that one of ours takes longer happens on very busy machines only."""


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
        self.logs: str | None = None
        """The folder of Ray's own logs on each node; None before it has started, and where Ray does not tell."""

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
            with environment(variables_for(execution)):
                self.logs = _connect(execution)
        except ExecutorError as error:
            return error
        except BaseException as error:
            where = f"at {execution.address}" if execution.address else "on this machine"
            return ExecutorError(
                f"Ray did not start {where}: {str(error).rstrip('.')}{_few_processes()}. "
                "--local (in Python run(local=True)) runs the same study in this process."
            )
        if execution.address is None and (missing := _missing_resource(execution, self.total)) is not None:
            self._shut_down()
            return ExecutorError(missing)
        self._ready.set()
        return None

    def _shut_down(self) -> None:
        import ray

        workers = [] if self._execution.address else _started_by_raylet()
        ray.shutdown()
        # They notice that their raylet is gone, but those that only just start look for it for half a minute. Where it
        # had ended before, they are nobody's children any more.
        end_all(workers)
        if self._execution.address is None and self.logs is not None:
            end_all(_naming(os.path.dirname(self.logs)))


def _connect(execution: Execution) -> str | None:
    """Start a private Ray, or connect to a cluster's.

    Returns:
        The folder of its logs.

    Raises:
        ExecutorError: it is known before that this cannot be.
    """
    import ray

    if ray.is_initialized():
        raise ExecutorError(
            "Ray is already running in this process: run the study in another, or with --local (in Python "
            "run(local=True)), which needs no Ray"
        )
    if execution.address is None:
        check_loopback()
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
    attempts_left = START_ATTEMPTS
    while True:
        try:
            return _init(execution, address, options)
        except Exception:
            ray.shutdown()
            if execution.address is not None:
                raise
            end_all(_half_started())
            attempts_left -= 1
            if not attempts_left:
                raise


def _init(execution: Execution, address: str, options: dict[str, Any]) -> str | None:
    """
    Returns:
        The folder of Ray's logs; None through a client (``ray://``), which is not told.
    """
    import ray

    with tempfile.TemporaryDirectory(prefix="calm-bench-") as empty:
        packages: dict[str, Any] = {} if execution.address is None else travelling_code()
        try:
            # Where there is a working directory, Ray does not put the driver's before all else on the workers' path.
            context = ray.init(address, runtime_env={**packages, "working_dir": empty}, **options)
        except ValueError as error:
            if execution.address is None or "runtime env" not in str(error):
                raise
            # A job that was submitted with a working directory of its own keeps that one.
            context = ray.init(address, runtime_env=packages, **options)
    session = getattr(context, "address_info", {}).get("session_dir")
    return None if session is None else os.path.join(session, "logs")


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


def check_loopback() -> None:
    """Reach this process over 127.0.0.1, where a private Ray talks to itself and would wait for minutes.

    Raises:
        ExecutorError: that cannot be, as in a namespace of its own whose loopback is down.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=LISTENER_S).close()
    except OSError as error:
        raise ExecutorError(
            f"Ray's processes talk over loopback, and 127.0.0.1 cannot be reached here ({error}): bring it up (ip link "
            "set lo up), or use --local, which needs no Ray"
        ) from error


def _missing_resource(execution: Execution, total: Callable[[str], float]) -> str | None:
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
            # Fewer workers help where there is enough for one.
            fewer = " or execution.workers" if workers > 1 and available >= needed / workers else ""
            return (
                f"a stage needs {needed / unit:.4g} {name} and Ray found {available / unit:.4g}: lower "
                f"execution.{setting}{fewer}, or give the address of a cluster in execution.address"
            )
    return None


def _few_processes() -> str:
    """What to add where so few processes may run that Ray could not start its own; empty where that is not the case."""
    soft, _ = getrlimit(RLIMIT_NPROC)
    # Of root the limit of users is not asked.
    of_user = None if soft == RLIM_INFINITY or os.getuid() == 0 else soft
    limits = [limit for limit in (process_limit(), of_user) if limit is not None]
    if not limits or min(limits) >= PROCESSES:
        return ""
    return (
        f"; {min(limits)} processes and threads may run here (pids.max of the control group, ulimit -u), and Ray takes "
        "hundreds"
    )


def _half_started() -> list[psutil.Process]:
    """Servers of a Ray whose start failed."""
    import ray

    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(word.startswith(os.path.dirname(ray.__file__)) for word in child.cmdline()):
                found.append(child)
    return found


def _naming(session: str) -> list[psutil.Process]:
    """Processes that were started with a file in the folder of a Ray's session, which no other Ray has."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(f"{session}/" in word for word in process.cmdline()):
                found.append(process)
    return found


def _started_by_raylet() -> list[psutil.Process]:
    """The workers and agents of a private Ray."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.name() == "raylet":
                found += child.children(recursive=True)
    return found
