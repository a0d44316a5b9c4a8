"""Every error of this project carries its exit code, and the command ends with it."""

from __future__ import annotations

import errno
import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module

import pytest

import calm_bench
import evals
import pipelines
from calm_bench.errors import (
    FAILED,
    INTERRUPTED,
    OVER_BUDGET,
    USAGE,
    CalmBenchError,
    RunError,
    StopRequested,
    UsageError,
)
from pipelines.app import cli

PACKAGES = (calm_bench, evals, pipelines)


def own_errors() -> Iterator[type[BaseException]]:
    """Every exception class that a module of the three packages defines."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.startswith("calm_bench.testing"):
                continue
            module = import_module(found.name)
            for _, member in inspect.getmembers(module, inspect.isclass):
                if issubclass(member, BaseException) and member.__module__ == module.__name__:
                    yield member


def test_every_error_says_how_the_command_ends() -> None:
    found = set(own_errors())
    assert {"ConfigurationError", "StageError", "OverBudget", "StudyInterrupted"} <= {error.__name__ for error in found}
    assert {error.__qualname__ for error in found if not issubclass(error, CalmBenchError)} == set()
    ours = {error for error in found if issubclass(error, CalmBenchError)}
    # The base and the code agree; the nearest base decides.
    codes: dict[type, int] = {UsageError: USAGE, RunError: FAILED, StopRequested: INTERRUPTED}
    for error in ours:
        bases = [codes[base] for base in error.__mro__ if base in codes]
        assert error.exit_code == (bases or [error.exit_code])[0], error
    assert {error.exit_code for error in ours} == {FAILED, USAGE, OVER_BUDGET, INTERRUPTED}


@pytest.mark.parametrize("base", [UsageError, RunError, StopRequested])
def test_the_command_ends_with_the_code_of_an_error_it_has_never_heard_of(
    base: type[CalmBenchError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FromElsewhere(base):  # type: ignore[valid-type, misc]
        """What a plug-in might raise."""

    def fail() -> None:
        raise FromElsewhere("say postgresql://me:secret@host/db")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.delenv("CALM_BENCH_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == base.exit_code
    said = capsys.readouterr().err
    assert said.startswith("calm-bench: say postgresql://")
    assert "secret" not in said
    assert "FromElsewhere" not in said


def test_an_error_that_nobody_foresaw_says_where_to_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise KeyError("x")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.delenv("CALM_BENCH_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == FAILED
    assert "KeyError: 'x' (calm-bench --debug" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: no space left on device: give another place"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), "/a: read-only file system: it can be read (leaderboard"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files: raise the number of open files (ulimit"),
    ],
)
def test_errors_of_the_machine_carry_advice(
    error: OSError, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == FAILED
    assert f"calm-bench: {message}" in capsys.readouterr().err
