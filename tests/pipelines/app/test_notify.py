"""A command of the user's own hears how a study ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from calm_bench.errors import StopRequested
from calm_bench.overrides import ConfigurationError
from pipelines.app.notify import notifying


@pytest.fixture
def command(tmp_path: Path) -> str:
    script = tmp_path / "tell.py"
    script.write_text(
        "import os, sys\n"
        "names = ('STUDY', 'STATE', 'RESULTS', 'MESSAGE')\n"
        "open(sys.argv[1], 'w').write('|'.join(os.environ['CALM_BENCH_' + name] for name in names))\n"
    )
    return f"{sys.executable} '{script}' '{tmp_path / 'heard it'}'"


def heard(tmp_path: Path) -> str:
    return (tmp_path / "heard it").read_text()


def test_an_end_is_told(tmp_path: Path, command: str) -> None:
    results: list[str] = []
    with notifying(command, "smoke", results, pytest.fail):
        results.append("runs/studies/smoke-1")
    assert heard(tmp_path) == "smoke|finished|runs/studies/smoke-1|"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RuntimeError("broken"), "failed"),
        (StopRequested("broken"), "stopped"),
        (KeyboardInterrupt("broken"), "stopped"),
    ],
)
def test_an_error_is_told_and_stays(tmp_path: Path, command: str, error: BaseException, state: str) -> None:
    with pytest.raises(type(error)), notifying(command, "smoke", [], pytest.fail):
        raise error
    assert heard(tmp_path) == f"smoke|{state}||broken"


def test_a_command_that_fails_costs_a_line(tmp_path: Path) -> None:
    said: list[str] = []
    gone = tmp_path / "program"
    gone.symlink_to(sys.executable)
    for command in (f"{sys.executable} -c 'raise SystemExit(3)'", str(gone)):
        with notifying(command, "smoke", [], said.append):
            if command == str(gone):
                gone.unlink()
    assert len(said) == 2
    assert "ended with 3" in said[0]


def test_a_command_that_is_none_is_refused_before_anything_runs() -> None:
    for command in ("", "echo 'open"):
        with pytest.raises(ConfigurationError, match="--notify"), notifying(command, "smoke", [], pytest.fail):
            pytest.fail("it ran")


def test_what_it_prints_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output may be read by a program, as with ``run --json``."""
    with notifying("echo heard", "smoke", [], pytest.fail):
        pass
    assert capfd.readouterr() == ("", "heard\n")
