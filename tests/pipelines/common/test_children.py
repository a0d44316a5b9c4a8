"""What a process has started ends with it, also where it was killed and could tell nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import pipelines
from pipelines.tracking.servers import TIED

TIED_CHILD = """
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, sys.argv[1], "server", "argument"], stdin=subprocess.PIPE, start_new_session=True
)
child.wait()
"""
SERVER = """
import subprocess, sys
from pathlib import Path
assert sys.stdin.read() == "" and sys.argv[1:] == ["argument"] and __name__ == "__main__"
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("told").write_text(f"{child.pid} {__import__('os').getpid()}")
child.wait()
"""
POOL = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from pipelines.common.with_parent import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        Path("told").write_text(str(pool.submit(os.getpid).result()))
        time.sleep(600)
"""


@pytest.mark.parametrize(("program", "arguments"), [(TIED_CHILD, [str(TIED)]), (POOL, [])], ids=["tied", "pool"])
def test_they_end_with_a_process_that_is_killed(program: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "program.py").write_text(program)
    path = os.pathsep.join([str(tmp_path), str(Path(pipelines.__file__).parents[1])])
    starter = subprocess.Popen(
        [sys.executable, "program.py", *arguments], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "told").exists() or not (told := (tmp_path / "told").read_text()):
        assert starter.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started = [psutil.Process(int(number)) for number in told.split()]
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    _, left = psutil.wait_procs(started, timeout=60)
    for process in left:
        process.kill()
    assert not left
