"""What would be measured on a GPU is rehearsed on a CPU: every line runs, and what it finds is kept."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from bench import gpu


@pytest.fixture
def with_bench(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the benchmarks can be imported from: it is part of no installation."""
    monkeypatch.syspath_prepend(pytestconfig.rootpath)


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


CASES = """
import json, os, signal, sys, time
of = dict(zip(sys.argv[1::2], sys.argv[2::2]))
told = os.fdopen(int(of["--tell"]), "w")

def tell(**what):
    told.write(json.dumps(what) + chr(10))
    told.flush()

tell(device="a GPU")
for name in ("fine", "crash", "hang", "lost", "last")[int(of["--done"]):]:
    tell(section="last" if name == "last" else "checks", begins=name)
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang":
        time.sleep(60)
    tell(row={"": name, "error": "illegal access"} if name == "lost" else {"": name, "holds": True})
    if name == "lost":
        sys.exit(3)
tell(all=True)
"""
"""What gives an answer, takes its process with it, gives none, and leaves a device that computes nothing more."""


def measured(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> gpu.Found:
    from bench import gpu

    cases = folder / "cases.py"
    cases.write_text(text)
    monkeypatch.setattr(gpu, "CASES", (str(cases),))
    found = gpu.Found(folder)
    gpu.measure(argparse.Namespace(device="cuda", only="checks", minutes=5, silence=3.0, peak=None), found)
    assert json.loads((folder / "gpu.json").read_text())["sections"] == found.sections
    return found


@pytest.mark.usefixtures("with_bench")
def test_a_case_that_takes_its_process_with_it_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(tmp_path, CASES, monkeypatch)
    assert found.sections == {
        "checks": [
            {"": "fine", "holds": True},
            {"": "crash", "error": "its process was ended by SIGSEGV"},
            {"": "hang", "error": "it gave no answer, and was ended"},
            {"": "lost", "error": "illegal access"},
        ],
        "last": [{"": "last", "holds": True}],
    }
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("a GPU, torch ")
    assert "## last" in text


@pytest.mark.usefixtures("with_bench")
def test_what_cannot_begin_is_told_and_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(tmp_path, "raise SystemExit(1)", monkeypatch)
    assert found.sections == {"machine": [{"": "nothing more was begun", "error": "it ended with 1"}]}


@pytest.mark.usefixtures("with_bench")
def test_what_is_no_number_does_not_hold() -> None:
    from bench.gpu_checks import as_it_is
    from bench.gpu_device import near

    assert near((0.1, 0.2), 0.3)
    assert not near((0.1, nan), 0.3)
    assert not near((nan, 0.1), 0.3)
    assert not near((0.1, 0.3), 0.3)
    assert not near((), 0.3)
    plain = (torch.ones(()), torch.ones(3))
    assert as_it_is(plain, plain, 1.0)["holds"] is True
    assert as_it_is(plain, (torch.ones(()), torch.tensor([1.0, nan, 1.0])), 1.0)["holds"] is False
