"""Commands that lost a password name the variable that it comes from, and a shell that has it runs them as given."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipelines.app.commands.store import _again
from pipelines.common.shell_commands import of_mask, shell_command
from pipelines.monitor.watching import poll
from pipelines.planning.preflight import check_study
from pipelines.store.opening import open_store
from pipelines.store.study_record import save_study
from pipelines.study.catalogue import resolve_study

ADDRESS = "postgresql://me:a/$secret@host/db"
VARIABLES = {"CALM_BENCH_OPTUNA_STORAGE": ADDRESS, "MLFLOW_TRACKING_URI": "http://me:hunter2@host"}
TYPED = [
    ["run", f"execution.optuna_storage={ADDRESS}", "--store", "a store"],
    ["run", "tracking.uri=http://me:hunter2@host", "it's=$HOME"],
    ["mlflow", "sync", "--uri", "http://me:hunter2@host"],
    ["mlflow", "sync", "--uri=http://me:hunter2@host"],
]


def read_by_a_shell(command: str, **variables: str) -> list[str]:
    """The words that a program gets which is called by ``command``."""
    script = f"calm-bench() {{ printf '%s\\0' \"$@\"; }}; {command}"
    done = subprocess.run(["sh", "-c", script.replace("calm-bench", "calm_bench")], env=variables, capture_output=True)
    if done.returncode:
        raise ValueError(done.stderr.decode())
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("typed", TYPED)
def test_a_shell_with_the_variable_gives_what_was_typed(typed: list[str]) -> None:
    command = shell_command(["calm-bench", *typed])
    assert "secret" not in command
    assert "hunter2" not in command
    assert not of_mask(command)
    assert read_by_a_shell(command, **VARIABLES) == typed
    # A command that was kept is read, changed and written again.
    again = shell_command(["calm-bench", *read_by_a_shell(command, **{name: f"${{{name}:?}}" for name in VARIABLES})])
    assert again == command
    with pytest.raises(ValueError, match="parameter"):
        read_by_a_shell(command)


def test_what_no_variable_stands_for_is_said() -> None:
    command = shell_command(["calm-bench", "run", "--notify", "curl https://me:hunter2@host"])
    assert command == "calm-bench run --notify 'curl https://***@host'"
    assert of_mask(command) == " (*** stands for what is secret and kept nowhere)"


def test_the_commands_of_a_kept_study_pass_with_the_variable(tmp_path: Path) -> None:
    """Without it they were refused: the address in the store's file has lost its password."""
    folder = tmp_path / "studies" / "smoke-0123456789abcdef"
    folder.mkdir(parents=True)
    save_study(folder, resolve_study("smoke", [f"execution.optuna_storage={ADDRESS}"]))
    (folder / "trials.json").write_text("[]")
    watched = poll(folder, tmp_path).command
    assert f"{watched} makes them again" == _again(folder, open_store(str(tmp_path)))
    _, file, setting, *_ = read_by_a_shell(watched, **VARIABLES)
    study = resolve_study(file, [setting])
    assert study.execution.optuna_storage == ADDRESS
    check_study(study)
