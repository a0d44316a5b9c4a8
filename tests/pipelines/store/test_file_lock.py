"""A lock whose holder is stopped is said to be waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipelines.store import file_lock
from pipelines.store.file_lock import locked

HOLD = """
import sys
from pathlib import Path
from pipelines.store.file_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_is_waited_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(file_lock, "PATIENCE_S", 0.2)
    path = tmp_path / "a store" / ".guard"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    while psutil.Process(holder.pid).status() != psutil.STATUS_STOPPED:
        pass
    holder.stdin.close()
    said = ""

    def let_go_when_it_is_said() -> None:
        nonlocal said
        deadline = time.monotonic() + 120
        while not said and time.monotonic() < deadline:
            said += capsys.readouterr().err
            time.sleep(0.02)
        os.kill(holder.pid, signal.SIGCONT)

    thread = threading.Thread(target=let_go_when_it_is_said)
    thread.start()
    with locked(path):
        thread.join()
    assert f"waiting for process {holder.pid} (it is stopped: fg or kill -CONT {holder.pid} lets it go on)" in said
    assert f"which holds the lock {path}" in said
    holder.wait()
    with locked(path):
        pass
    assert capsys.readouterr().err == ""
