"""Limits of a shell that a command runs into: the command that the message prints is typed, and all is well."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from calm_bench import shell_limits

STAGE = """
import sys
from pathlib import Path
import numpy as np
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.run_stage import StageError
from pipelines.store.store import Store
from pipelines.study.stage import Stage
from pipelines.study.stage_kind import STAGE_KINDS, StageKind

def run(stage, inputs, folder, context):
    # Addresses alone: nothing is written there.
    return {"value": len(np.empty(2**31, np.uint8))}

STAGE_KINDS.register("large", StageKind("large", run, uses_torch=False))
executor = LocalExecutor(Store(sys.argv[1]))
try:
    print(executor.submit(Stage("large", 1, {})).result())
except StageError as error:
    sys.exit(str(error))
finally:
    executor.close()
    print("KiB:", *(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmPeak")))
"""
OPENED = """
import os, sys
from pipelines.app import cli
def command():
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
cli.app = command
cli.main()
"""
WRITTEN = """
import sys
from pathlib import Path
from pipelines.app import cli
cli.app = lambda: Path(sys.argv[1], "large").write_bytes(b"x" * 50_000)
cli.main()
"""


def shell(text: str) -> subprocess.CompletedProcess[str]:
    # Compiled modules, which other tests read, would stay cut off at a limit.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, check=False, timeout=300, env=environment
    )


def advised(text: str) -> str:
    """The command in a message."""
    found = re.search(r"\((ulimit -\w+ \w+)\)", text)
    assert found is not None, text
    return found[1]


@pytest.mark.parametrize(("script", "limit"), [(OPENED, "-Sn 80"), (WRITTEN, "-Sf 16")], ids=["many", "large"])
def test_files_of_a_command(script: str, limit: str, tmp_path: Path) -> None:
    run = shlex.join([sys.executable, "-c", script, str(tmp_path)])
    refused = shell(f"ulimit {limit}; {run}")
    assert refused.returncode == 1, refused.stderr
    done = shell(f"ulimit {limit}; {advised(refused.stderr)}; {run}")
    assert done.returncode == 0, done.stderr


def test_addresses_of_a_stage(tmp_path: Path) -> None:
    run = shlex.join([sys.executable, "-c", STAGE, str(tmp_path)])
    free = shell(run)
    assert free.returncode == 0, free.stderr
    (peak,) = re.findall(r"KiB: (\d+)", free.stdout)
    # Room for what begins, and for half of what the stage wants.
    limit = f"ulimit -Sv {int(peak) - 2**20}"
    (tmp_path / "other").mkdir()
    run = shlex.join([sys.executable, "-c", STAGE, str(tmp_path / "other")])
    refused = shell(f"{limit}; {run}")
    assert "out of memory" in refused.stderr, refused.stderr
    done = shell(f"{limit}; {advised(refused.stderr)}; {run}")
    assert "{'value': 2147483648}" in done.stdout, done.stderr


def test_who_is_at_the_hard_limit_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (2**20, 2**20))
    assert "in a shell or a job that may have more" in shell_limits.lifted("v")
