"""A private Ray and its processes."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading

import pytest

from pipelines.execution import ray_instance
from pipelines.execution.executor import ExecutorError
from pipelines.execution.ray_instance import RayInstance
from pipelines.study.config import Execution


def test_too_few_processes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself waits for a file that a server which could not be started would have written."""
    refused: queue.Queue[ExecutorError] = queue.Queue()

    def connect(_: Execution) -> str:
        raise TimeoutError("Timed out waiting for file gcs_server_port.")

    monkeypatch.setattr(ray_instance, "_connect", connect)
    said = []
    for limit in (25, 4096, None):
        monkeypatch.setattr(ray_instance, "process_limit", lambda limit=limit: limit)
        instance = RayInstance(Execution())
        instance.do(lambda: None, refused.put)
        said.append(str(refused.get(timeout=60)))
        instance.end()
    assert "port; 25 processes and threads may run here (pids.max of the control group" in said[0]
    assert "pids.max" not in said[1] + said[2]


@pytest.mark.extended
def test_a_worker_that_lost_its_raylet_ends_with_the_instance() -> None:
    instance, started = RayInstance(Execution()), threading.Event()
    refused: list[Exception] = []
    instance.do(started.set, refused.append)
    assert started.wait(300), refused
    assert instance.logs is not None
    command = [sys.executable, "-c", "import time; time.sleep(300)", f"--file={instance.logs}/x"]
    with subprocess.Popen(command) as orphan, subprocess.Popen([*command[:3], "--file=/tmp/ray"]) as other:
        try:
            instance.end()
            assert orphan.wait(60) != 0
            assert other.poll() is None
        finally:
            orphan.kill()
            other.kill()
