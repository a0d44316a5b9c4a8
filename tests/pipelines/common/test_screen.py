from __future__ import annotations

import errno
import io
import sys

import pytest
from rich.console import Console

from pipelines.common.screen import Screen, bearable, is_live, screens, why_lost


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("27.3 ± 0.5", "utf-8", "27.3 ± 0.5"),
        ("27.3 ± 0.5", "latin-1", "27.3 ± 0.5"),
        ("27.3 ± 0.5", "ascii", "27.3 +- 0.5"),
        ("1.2×10⁻¹³", "ascii", "1.2x10^-13"),  # noqa: RUF001
        ("cm²", "latin-1", "cm²"),
        ("10¹³", "latin-1", "10¹³"),
        ("10¹⁰", "latin-1", "10^10"),
        ("▁▄█ … ━", "ascii", "_-# ... -"),
        ("été", "ascii", "\\u00e9t\\u00e9"),
        ("\N{GRINNING FACE}", "ascii", "\\ud83d\\ude00"),
        ("caf\udce9", "utf-8", "caf\\xe9"),
        ("\ud800", "utf-8", "\\ud800"),
    ],
)
def test_signs_that_an_encoding_lacks_have_stand_ins(text: str, encoding: str, shown: str) -> None:
    assert bearable(text, encoding) == shown
    shown.encode(encoding)


class Full(io.StringIO):
    """A stream on a full disk."""

    attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stream_that_takes_no_more_is_known_and_not_tried_again() -> None:
    full = Full()
    screen = Screen(full)
    assert screen.write("one") == 3
    assert screen.write("two") == 3
    screen.flush()
    assert full.attempts == 1
    assert why_lost(screen) == "No space left on device"


def test_a_closed_stream_is_lost_too() -> None:
    stream = io.StringIO()
    stream.close()
    screen = Screen(stream)
    screen.write("one")
    assert "closed" in why_lost(screen)
    assert not screen.isatty()


def test_tables_use_the_lines_that_the_stream_has() -> None:
    raw = io.BytesIO()
    screen = Screen(io.TextIOWrapper(raw, encoding="ascii"))
    Console(file=screen, width=40).rule("27.3 ± 0.5")  # type: ignore[arg-type]
    screen.flush()
    assert b"- 27.3 +- 0.5 -" in raw.getvalue()
    assert why_lost(screen) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "live"),
    [
        (Terminal, {}, True),
        (Terminal, {"FORCE_COLOR": "1"}, True),
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
        # As jobs of CI have it, whose log keeps every line.
        (io.StringIO, {"FORCE_COLOR": "1"}, False),
        # As a notebook's kernel has it: its stream, and the pseudo-terminal of a command in a cell.
        (Terminal, {"FORCE_COLOR": "1", "JPY_PARENT_PID": "7"}, False),
    ],
)
def test_only_what_can_be_written_over_is_live(
    stream: type[io.StringIO], variables: dict[str, str], live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "JPY_PARENT_PID", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_live(Console(file=stream(), force_jupyter=False)) is live


def test_what_was_closed_takes_all_and_mixes_with_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python has no stream there, and ``print`` takes none for standard output: results would hold messages."""
    for name in ("stdout", "stderr"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, None)
            with screens():
                print("a word", file=getattr(sys, name))
                assert not getattr(sys, name).isatty()
            assert getattr(sys, name) is None
    assert capsys.readouterr() == ("", "")
