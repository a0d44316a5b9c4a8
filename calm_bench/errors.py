"""Bases of all errors of this project: each carries the code with which ``calm-bench`` ends when nobody catches it.

The base of an error says what kind of trouble it tells of, and its message what to do about it. The command prints that
message alone; an error without one of these bases was not foreseen, and is shown with the name of its class.
"""

from __future__ import annotations

from typing import ClassVar

FAILED = 1
"""Exit code: something failed while it ran."""
USAGE = 2
"""Exit code: the command or a configuration cannot be used as given; nothing was started."""
OVER_BUDGET = 3
"""Exit code: the study would cost more than ``--budget`` allows; nothing was started."""
INTERRUPTED = 130
"""Exit code by which shells know Ctrl-C: what was done is kept, and the same command goes on."""


class CalmBenchError(Exception):
    """Base of every error of this project. Inherit from one of the classes below rather than from this."""

    exit_code: ClassVar[int] = FAILED
    input_explains: ClassVar[bool] = True
    """Whether a damaged input could be behind it, so that checking the inputs of what failed is worth the time."""
    may_pass: ClassVar[bool] = False
    """Whether the same may go well a little later, with nothing changed here."""


class UsageError(CalmBenchError):
    """What was asked for cannot be done as asked; a change of the command, study or input file helps."""

    exit_code = USAGE


class RunError(CalmBenchError):
    """What was asked for was begun and failed."""

    exit_code = FAILED


class StopRequested(CalmBenchError):
    """Work was ended because somebody asked for it."""

    exit_code = INTERRUPTED
