"""Screens that lack letters, are full, narrow or gone: a study is complete, and commands show what they can."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.faults.small_study import COMMAND, STUDY

pytestmark = pytest.mark.slow

FILES = {"leaderboard.csv", "leaderboard.json", "leaderboard.md", "leaderboard.png", "leaderboard.svg", "report.html"}
PLAIN_TERM = {"TERM": "dumb", "COLUMNS": "20"}
LOCALE = {"LC_ALL": "POSIX", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of one small token model, finished in the store ``runs``."""
    folder = tmp_path_factory.mktemp("screens")
    model = STUDY["model"] | {"training": STUDY["model"]["training"] | {"num_steps": 20}}
    search = {"parameters": [{"name": "model", "choices": {"tökén": {"model.kind": "token"}}}]}
    (folder / "small.yaml").write_text(json.dumps(STUDY | {"model": model, "search": search}))
    done = run(folder, "run", "small.yaml", "--local")
    assert done.returncode == 0, done.stderr
    return folder


def run(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    # What a test runner sets of Python's own encoding would stand above the locale.
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    environment = {**own, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment, encoding="utf-8", errors="replace", check=False, **options
    )


def study_folder(folder: Path, store: str) -> Path:
    (found,) = (folder / store / "studies").iterdir()
    return found


def said(folder: Path, store: str) -> str:
    (record,) = (study_folder(folder, store) / "progress").glob("*.json")
    return str(json.loads(record.read_text())["view"]["said"])


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, pytest.param(LOCALE, marks=pytest.mark.long)])
@pytest.mark.extended
def test_a_study_ends_on_a_screen_without_the_letters(
    folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = run(folder, "run", "small.yaml", "--local", "--store", str(tmp_path / "runs"), env=environment)
    assert done.returncode == 0, done.stderr
    assert "BrierLM" in done.stdout
    assert {path.name for path in study_folder(tmp_path, "runs").iterdir()} >= FILES


@pytest.mark.extended
def test_a_study_ends_on_a_full_disk_of_its_output(folder: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = run(folder, "run", "small.yaml", "--local", "--store", str(tmp_path / "runs"), stdout=full)
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    assert str(study_folder(tmp_path, "runs")) in done.stderr
    assert "No space left on device" in said(tmp_path, "runs")
    assert {path.name for path in study_folder(tmp_path, "runs").iterdir()} >= FILES


@pytest.mark.extended
def test_a_study_ends_though_its_reader_and_its_errors_reader_have_left(folder: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(folder, "run", "small.yaml", "--local", "--store", str(tmp_path / "runs"), stdout=write, stderr=write)
    os.close(write)
    assert done.returncode == 0
    assert "Broken pipe" in said(tmp_path, "runs")
    assert {path.name for path in study_folder(tmp_path, "runs").iterdir()} >= FILES


@pytest.mark.extended
def test_a_study_ends_though_its_terminal_is_gone(folder: Path, tmp_path: Path) -> None:
    near, far = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", "small.yaml", "--local", "--store", str(tmp_path / "runs")],
        cwd=folder,
        env={**os.environ, "TERM": "xterm"},
        stdin=far,
        stdout=far,
        stderr=far,
    )
    os.close(far)
    shown = b""
    while b"study small" not in shown and b"faults" not in shown:
        if select.select([near], [], [], 60)[0]:
            shown += os.read(near, 4096)
    os.close(near)
    assert process.wait() == 0
    assert "Input/output error" in said(tmp_path, "runs")
    assert {path.name for path in study_folder(tmp_path, "runs").iterdir()} >= FILES


def commands(folder: Path) -> list[list[str]]:
    (model,) = (str(path) for path in (folder / "runs" / "stages" / "language_model").glob("*/model"))
    return [
        ["plan", "small.yaml"],
        ["leaderboard"],
        ["leaderboard", "--format", "md"],
        ["leaderboard", "--format", "json"],
        ["report"],
        ["store", "ls"],
        ["watch", "faults", "--once"],
        ["compare", model, model],
        ["generate", model, "--tokens", "4"],
        ["studies"],
        ["--help"],
    ]


@pytest.mark.parametrize(
    "environment", [pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.long), LOCALE | PLAIN_TERM]
)
@pytest.mark.extended
def test_commands_show_what_the_screen_can_bear(folder: Path, environment: dict[str, str]) -> None:
    for command in commands(folder):
        done = run(folder, *command, env=environment)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.isascii(), command
        if command[-1] == "json":
            assert "tökén" in str(json.loads(done.stdout))


def test_commands_that_could_not_show_anything_say_so(folder: Path) -> None:
    for command in commands(folder)[:3]:
        with open("/dev/full", "w") as full:
            done = run(folder, *command, stdout=full)
        assert done.returncode == 1, (command, done.stderr)
        assert "standard output could not be written: No space left on device" in done.stderr, command
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_reader_may_leave_without_a_word(folder: Path) -> None:
    for command in commands(folder)[1:3]:
        read, write = os.pipe()
        os.close(read)
        done = run(folder, *command, stdout=write)
        os.close(write)
        assert done.returncode == 1, (command, done.stderr)
        assert "rror" not in done.stderr, (command, done.stderr)


@pytest.mark.parametrize("width", [1, 20])
def test_narrow_terminals_are_terminals(folder: Path, width: int) -> None:
    for command in commands(folder)[:2]:
        near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 3, width, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *command],
            cwd=folder,
            env={**os.environ, "TERM": "xterm"},
            stdout=far,
            stderr=far,
        )
        os.close(far)
        shown = b""
        while True:
            try:
                shown += os.read(near, 65536)
            except OSError:
                break
        os.close(near)
        assert process.wait() == 0, (command, shown)
        assert b"Traceback" not in shown


def test_a_screen_of_no_columns_is_one_of_unknown_size(folder: Path) -> None:
    shown = run(folder, "leaderboard").stdout
    assert shown
    for size in ("0", "00", ""):
        assert run(folder, "leaderboard", env={"COLUMNS": size, "LINES": size}).stdout == shown


def test_closed_standard_streams_are_no_files_of_ours(folder: Path, tmp_path: Path) -> None:
    program = " ".join((sys.executable, "-c", "'from pipelines.app.entry import main; main()'"))
    line = f"{program} run small.yaml --local --store {tmp_path / 'runs'} <&- >&- 2>&-"
    assert subprocess.run(line, shell=True, cwd=folder, env={**os.environ}, check=False).returncode == 0
    assert {path.name for path in study_folder(tmp_path, "runs").iterdir()} >= FILES


def test_a_study_from_python_does_not_need_a_screen_either(folder: Path, tmp_path: Path) -> None:
    program = (
        "from calm_bench import Study\n"
        f"print(len(Study.from_yaml('small.yaml', store={str(tmp_path / 'runs')!r}).run(local=True)), "
        "file=__import__('sys').stderr)\n"
        "__import__('os')._exit(0)\n"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith("1")
