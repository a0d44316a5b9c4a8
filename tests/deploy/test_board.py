"""The workflow that publishes a board: it is one, and its commands do what it says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from tests.pipelines.conftest import entry

WORKFLOW = Path(__file__).parents[2] / "deploy/board/board.yml"
Run = Callable[[], list[int]]


def commands() -> list[str]:
    """What the workflow's shell runs, its installation left out."""
    jobs: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    found = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    return [line for line in found if not line.startswith("pip ")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the commands in an empty folder with ``results/``, until one fails; their exit codes."""
    (tmp_path / "results").mkdir()

    def run() -> list[int]:
        codes = []
        for line in commands():
            program, *arguments = shlex.split(line)
            assert program == "calm-bench"
            files = [str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "results").glob("*.json"))]
            given = [one for part in arguments for one in (files if "*" in part else [part])]
            ended = subprocess.run([Path(sys.executable).parent / program, *given], cwd=tmp_path, check=False)
            codes.append(ended.returncode)
            if ended.returncode:
                break
        return codes

    return run


@pytest.mark.slow
def test_the_workflow_has_the_form_of_one() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW]
    assert subprocess.run(check, check=False).returncode == 0


@pytest.mark.slow
def test_its_commands_render_what_is_in_order_and_refuse_the_rest(run: Run, tmp_path: Path) -> None:
    def send(name: str, row: Entry) -> None:
        (tmp_path / "results" / name).write_text(Leaderboard([row]).to_json())

    send("ada.json", entry(study="ada"))
    send("bob.json", entry(study="bob", model_identity="1111222233334444"))
    assert run() == [0, 0]
    assert (tmp_path / "site/index.html").stat().st_size > 100_000
    send("eve.json", entry(study="eve", model_identity="2222333344445555", brierlm=99.0))
    assert run() == [1]
