"""A private Ray and its processes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from pipelines.execution.ray_instance import RayInstance
from pipelines.study.config import Execution


@pytest.mark.slow
def test_a_worker_that_lost_its_raylet_ends_with_the_instance() -> None:
    instance, started = RayInstance(Execution()), threading.Event()
    refused: list[Exception] = []
    instance.do(started.set, refused.append)
    assert started.wait(120), refused
    assert instance.logs is not None
    command = [sys.executable, "-c", "import time; time.sleep(300)", f"--file={instance.logs}/x"]
    with subprocess.Popen(command) as orphan, subprocess.Popen([*command[:3], "--file=/tmp/ray"]) as other:
        try:
            instance.end()
            assert orphan.wait(10) != 0
            assert other.poll() is None
        finally:
            orphan.kill()
            other.kill()
