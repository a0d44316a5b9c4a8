"""What names and texts of others hold steers no terminal."""

from __future__ import annotations

import io

from rich.console import Console

from pipelines.app.commands.options import say
from pipelines.common.sanitize import without_controls
from pipelines.monitor.display import PlainProgress

HOSTILE = "a\x1b]0;title\x07\x1b[31mb\x9b2J\r\x08\x00\u202ec"
SHOWN = "a�]0;title��[31mb�2J����c"


def test_what_steers_a_terminal_is_shown() -> None:
    assert without_controls(HOSTILE) == SHOWN
    harmless = "two\nlines\tand 👩\N{ZERO WIDTH JOINER}💻 שלום naïve 数"
    assert without_controls(harmless) == harmless


def test_lines_of_commands_and_of_progress() -> None:
    screen = Console(file=io.StringIO(), width=200)
    say(screen, HOSTILE)
    PlainProgress(screen).message(HOSTILE)
    assert isinstance(screen.file, io.StringIO)
    first, second = screen.file.getvalue().splitlines()
    assert first == SHOWN
    assert second.startswith("[0 s] a�]0;title��[31mb�2J")
    assert "\x1b" not in second
