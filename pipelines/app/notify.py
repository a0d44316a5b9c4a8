"""A command of the user's own, started when a study has ended, whichever way."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from calm_bench.errors import INTERRUPTED, CalmBenchError
from calm_bench.overrides import ConfigurationError

PATIENCE_S = 60.0
STDERR = 2
"""Descriptor of this process's standard error."""

EndState = Literal["finished", "failed", "stopped"]


@contextmanager
def notifying(command: str | None, study: str, results: Sequence[str], say: Callable[[str], None]) -> Iterator[None]:
    """Start ``command`` when the block ends; without one, nothing happens.

    The command is no shell's: words are split as a shell does it, and nothing is expanded. Its environment says what
    has ended: ``CALM_BENCH_STUDY``, ``CALM_BENCH_STATE`` (``finished``, ``failed`` where trials failed or the run
    itself did, ``stopped`` by a signal), ``CALM_BENCH_RESULTS`` (the study's folder, empty before it is known) and
    ``CALM_BENCH_MESSAGE`` (of an error). What it prints goes to standard error: it is no result. Whether it succeeds
    changes nothing but a line on the screen.

    Args:
        results: the study's folder, as soon as it is known.

    Raises:
        ConfigurationError: ``command`` is empty, has quotes that are not closed, or there is no such program.
    """
    if command is None:
        yield
        return
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"--notify {command}: {error}") from None
    if not words:
        raise ConfigurationError("--notify needs a command")
    if shutil.which(words[0]) is None:
        raise ConfigurationError(
            f"--notify: there is no program {words[0]} to start: give its whole path, and to words of a shell that "
            "shell, as in --notify 'sh -c \"...\"'"
        )
    try:
        yield
    except BaseException as error:
        _start(words, study, _state(error), "".join(results), str(error), say)
        raise
    _start(words, study, "finished", "".join(results), "", say)


def _state(error: BaseException) -> EndState:
    stopped = isinstance(error, KeyboardInterrupt) or (
        isinstance(error, CalmBenchError) and error.exit_code == INTERRUPTED
    )
    return "stopped" if stopped else "failed"


def _start(
    words: list[str], study: str, state: EndState, folder: str, message: str, say: Callable[[str], None]
) -> None:
    told = {"STUDY": study, "STATE": state, "RESULTS": folder, "MESSAGE": message}
    environment = os.environ | {f"CALM_BENCH_{name}": value for name, value in told.items()}
    try:
        done = subprocess.run(
            words, env=environment, timeout=PATIENCE_S, stdin=subprocess.DEVNULL, stdout=STDERR, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"--notify: {error}")
        return
    if done.returncode:
        say(f"--notify: {words[0]} ended with {done.returncode}")
