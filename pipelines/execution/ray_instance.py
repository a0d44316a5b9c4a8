"""The Ray of one executor: a private instance, on loopback and with no more servers than needed, or a cluster's."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calm_bench.devices import available_cpus
from pipelines.execution.executor import ExecutorError
from pipelines.execution.ray_servers import fewest_servers
from pipelines.execution.ray_train import THREADS
from pipelines.study.config import Execution

ONE_HOST = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable for whether nodes may join from other hosts; where they may not, it listens on loopback only."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Results are small and artifacts travel through the store, so Ray's usual third of the memory is not needed."""

_NEEDED = ("pipelines.execution.ray_executor", "pipelines.study.kinds.language_model")
"""What workers import while Ray still starts, rather than with their first stage."""

ROOT = Path(__file__).resolve().parent.parent.parent


class RayInstance:
    """Starts Ray in the background, once, and ends it.

    Both in one thread that lives as long as Ray does: its processes are told to die with the thread that made them.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._launched = threading.Event()
        self._ready = threading.Event()
        self._over = threading.Event()
        self._error: ExecutorError | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Have it started; further calls do nothing.

        Returns when this process has little to do for it any more: to import Ray and something else at once is slower
        than one after the other.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
            self._thread.start()
            self._launched.wait()

    def is_starting(self) -> bool:
        """Whether it has begun and is not there yet."""
        return self._thread is not None and not self._ready.is_set()

    def settle(self) -> None:
        """Wait until it has started or failed to, if it has begun."""
        if self._thread is not None:
            self._ready.wait()

    def resources(self) -> dict[str, float]:
        """What Ray has of each resource, once it has started.

        Raises:
            ExecutorError: it did not start.
        """
        self.begin()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        import ray

        found: dict[str, float] = ray.cluster_resources()
        return found

    def nodes(self) -> list[dict[str, float]]:
        """What each living node has of each resource; for a Ray that has started."""
        import ray

        return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]

    def end(self) -> None:
        """End it, and return when its processes have been told to."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _live(self) -> None:
        try:
            with _environment({} if self._execution.address else _private_environment()):
                self._start()
        except ExecutorError as error:
            self._error = error
            return
        except BaseException as error:
            where = f"at {self._execution.address}" if self._execution.address else "on this machine"
            self._error = ExecutorError(
                f"Ray did not start {where}: {error}. --local runs the same study in this process."
            )
            self._error.__cause__ = error
            return
        finally:
            self._launched.set()
            self._ready.set()
        self._over.wait()
        import ray

        ray.shutdown()

    def _start(self) -> None:
        import ray

        if ray.is_initialized():
            raise ExecutorError("Ray is already running in this process: run the study where it is not")
        execution = self._execution
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if execution.address is not None:
            self._launched.set()
            ray.init(execution.address, runtime_env=_travelling_code(), **quiet)
            return
        with fewest_servers(self._launched.set, with_environments=execution.workers > 1):
            # Not left unset: Ray would then join an instance that somebody else started on this machine.
            ray.init(
                "local",
                num_cpus=max(available_cpus(), math.ceil(execution.workers * execution.cpus_per_stage)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _system_config={
                    "preload_python_modules": list(_NEEDED),
                    # Its server looks for its object store, and where that is not there yet, not again for a second.
                    "raylet_client_connect_timeout_milliseconds": 20,
                    "raylet_client_num_connect_attempts": 1000,
                },
                **quiet,
            )


def _private_environment() -> dict[str, str]:
    """What the processes of a private Ray inherit."""
    return {
        # Nobody but this process talks to it, over loopback, where alone it listens: as on other systems, although
        # Linux could have clusters. Its servers run what they are sent, so all the machine's addresses will not do.
        ONE_HOST: "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A stage that declared no GPU must not see one, or its numbers would depend on where it lands.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        **THREADS,
        **_import_path(),
    }


def _import_path() -> dict[str, str]:
    """PYTHONPATH by which workers find a checkout that this process imports without installation."""
    if ROOT.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def _travelling_code() -> dict[str, Any]:
    """A runtime environment that brings the three packages to nodes where they are not installed."""
    packages = [str(ROOT / name) for name in ("calm_bench", "evals", "pipelines")]
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
