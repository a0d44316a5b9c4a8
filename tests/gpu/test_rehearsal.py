"""What would be measured on a GPU is rehearsed on a CPU: every line runs, and what it finds is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def rehearsed(folder: Path, root: Path, *more: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--out", str(folder), *more]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=500)
    assert (folder / "gpu.json").is_file(), done.stderr
    return done.returncode, json.loads((folder / "gpu.json").read_text())["sections"], (folder / "gpu.md").read_text()


@pytest.mark.long
@pytest.mark.slow
def test_sections_are_rehearsed_one_by_one(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    code, found, text = rehearsed(tmp_path, pytestconfig.rootpath, "--only", "machine,validation,checkpoints")
    assert code == 0, found
    assert list(found) == ["machine", "validation", "checkpoints"]
    assert not [row for rows in found.values() for row in rows if "error" in row]
    assert text.startswith("CPU, torch ")
    assert "## checkpoints" in text
    assert found["checkpoints"][0]["GB"] > 0


def test_when_the_time_is_over_nothing_more_is_begun(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    code, found, _ = rehearsed(tmp_path, pytestconfig.rootpath, "--only", "machine", "--minutes", "0")
    assert code == 1
    assert {row["error"] for row in found["machine"]} == {"left out: the time was over"}


@pytest.mark.long
def test_everything_is_rehearsed(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    code, found, _ = rehearsed(tmp_path, pytestconfig.rootpath)
    assert code == 0, found
    assert all(row["holds"] for row in (*found["checks"], *found["compiled"]) if "holds" in row)
    assert {row[""] for row in found["steps"]} >= {"paper-m energy", "paper-m energy, compiled"}
