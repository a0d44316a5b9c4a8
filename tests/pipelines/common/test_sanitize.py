"""What names and texts of others hold steers no terminal."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from pipelines.app.commands.options import say
from pipelines.common.sanitize import without_controls
from pipelines.monitor.display import PlainProgress, print_said
from pipelines.monitor.view import Said

HOSTILE = "a\x1b]0;title\x07\x1b[31mb\x9b2J\r\x08\x00\u202ec"
SHOWN = "a�]0;title��[31mb�2J����c"


def test_what_steers_a_terminal_is_shown() -> None:
    assert without_controls(HOSTILE) == SHOWN
    harmless = "two\nlines\tand 👩\N{ZERO WIDTH JOINER}💻 שלום naïve 数"
    assert without_controls(harmless) == harmless


def by_say(screen: Console) -> None:
    say(screen, HOSTILE)


def by_progress(screen: Console) -> None:
    PlainProgress(screen).message(HOSTILE)


def by_another_driver(screen: Console) -> None:
    """What ``watch`` reads of a file, which anybody may have written."""
    print_said(screen, Said(number=0, elapsed_s=0, text=HOSTILE, level="info"))


@pytest.mark.parametrize("show", [by_say, by_progress, by_another_driver])
def test_lines_of_commands_and_of_progress(show: Callable[[Console], None]) -> None:
    screen = Console(file=io.StringIO(), width=200)
    show(screen)
    assert isinstance(screen.file, io.StringIO)
    (line,) = screen.file.getvalue().splitlines()
    assert line.removeprefix("[0 s] ").startswith("a�]0;title��[31mb�2J")
    assert "\x1b" not in line
