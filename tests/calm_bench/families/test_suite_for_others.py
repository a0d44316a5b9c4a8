"""The family of the documentation, with the test that the documentation gives it, as somebody else would run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import calm_bench

pytest_plugins = ["pytester"]
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "own-family.md"


@pytest.mark.slow
def test_a_family_of_ones_own_is_tested_in_ones_own_project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, test = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(family.splitlines()) + len(test.splitlines()) <= 60
    pytester.makepyfile(my_family=family, test_my_family=test)
    pytester.makeini("[pytest]\naddopts = --strict-markers")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pytester.path), str(Path(calm_bench.__file__).parents[1])]))
    done = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    outcomes = done.parseoutcomes()
    assert outcomes["passed"] >= 14
    done.assert_outcomes(passed=outcomes["passed"])


@pytest.mark.slow
def test_the_command_of_the_page_is_planned_as_it_stands(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (tmp_path / "my_family.py").write_text(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0])
    path, *command = shlex.split(re.findall(r"```\n(PYTHONPATH=\. calm-bench run .*)\n```", page)[0])
    program = [sys.executable, "-P", "-c", "from calm_bench.command import main; main()", "plan", *command[2:]]
    root = str(Path(calm_bench.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([path.partition("=")[2], root])}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "custom model K=4" in done.stdout
