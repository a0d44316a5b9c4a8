"""Where a command's words go: a terminal, a pipe or a file that may lack letters, be full, or be gone.

What a study finds is in its files. So a text is written as far as its stream can bear it, and a stream that takes no
more ends nothing: it is known as lost, and whoever has to, says so elsewhere.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from rich.console import Console

KERNEL = "JPY_PARENT_PID"
"""What Jupyter sets for its kernels, and so for commands that a cell starts."""

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", strict=True))
_EXPONENT = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_BARS = dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True))
_PLAIN = {"±": "+-", "×": "x", "·": "*", "…": "...", "−": "-", "–": "-", "★": "*", "∞": "inf", "⟦": "[[", "⟧": "]]"}  # noqa: RUF001
_LINES = dict.fromkeys("─━═╌╍┄┅", "-") | dict.fromkeys("│┃║╎╏", "|") | dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╸╺╴╶", "+")
_STAND_INS = _PLAIN | _BARS | _LINES | {"•": "*", "✓": "v", "✗": "x", "\N{REPLACEMENT CHARACTER}": "?"}
"""What stands for the signs of tables and panels where a stream lacks them."""


def is_live(console: Console) -> bool:
    """Whether lines on ``console`` can be written over.

    Not in a notebook: its cells and their pseudo-terminals call themselves terminals, and keep every line. Nor in a
    file or pipe, which ``FORCE_COLOR`` makes a terminal for colours alone.
    """
    if KERNEL in os.environ or (os.environ.get("FORCE_COLOR") and not console.file.isatty()):
        return False
    return console.is_terminal and not console.is_dumb_terminal


def bearable(text: str, encoding: str) -> str:
    """``text`` with what ``encoding`` lacks as ASCII: signs by their look, exponents as ``10^13``, letters as in JSON
    (``\\u00e9``), bytes of file names that are no text as ``\\xff``."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        pass
    else:
        return text
    known = {character: _has(encoding, character) for character in set(text)}

    def exponent(found: re.Match[str]) -> str:
        if all(known[character] for character in found[0]):
            return found[0]
        return "^" + "".join(_SUPERSCRIPTS[character] for character in found[0])

    written = _EXPONENT.sub(exponent, text)
    return "".join(each if known.get(each, True) else _STAND_INS.get(each) or _escaped(each) for each in written)


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


class Screen(io.TextIOBase):
    """A text stream that takes every text (:func:`bearable`) and raises nothing when ``stream`` can no longer be
    written to: from then on it drops what it is given, and :attr:`lost` says why."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.lost: OSError | ValueError | None = None
        """Why nothing can be written any more; ``None`` while it can."""
        self.is_told = False
        """Whether somebody has said that it is lost."""
        self._was_terminal = self._is_terminal()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return getattr(self._stream, "errors", None)

    @property
    def reason(self) -> str:
        """Why it is lost, in words; empty while it is not."""
        self._note_hangup()
        if self.lost is None:
            return ""
        return (self.lost.strerror if isinstance(self.lost, OSError) else None) or str(self.lost)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        self._note_hangup()
        return self._is_terminal()

    def _is_terminal(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def _note_hangup(self) -> None:
        """A terminal that has gone is none any more, and what is shown on terminals only is no longer even tried."""
        if self.lost is None and self._was_terminal and not self._is_terminal():
            self.lost = OSError(errno.EIO, os.strerror(errno.EIO))

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        if self.lost is None:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    self._stream.write(bearable(text, self.encoding))
            except (OSError, ValueError) as error:
                self.lost = error
        return len(text)

    def flush(self) -> None:
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.lost = error

    def let_go(self) -> None:
        """Give what a lost stream still holds to nobody: Python's own exit would try once more, and fail."""
        if self.lost is None:
            return
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def screen_of(stream: IO[str]) -> IO[str]:
    """``stream`` as a :class:`Screen`, unless it is one."""
    return stream if isinstance(stream, Screen) else cast("IO[str]", Screen(stream))


def why_lost(stream: IO[str]) -> str:
    """Why ``stream`` shows nothing any more, in words; empty where it does."""
    return stream.reason if isinstance(stream, Screen) else ""


def take_loss() -> str:
    """:func:`why_lost` of standard output, for a caller who says it: :func:`unshown` will not."""
    if isinstance(sys.stdout, Screen):
        sys.stdout.flush()
        sys.stdout.is_told = True
    return why_lost(sys.stdout)


@contextmanager
def screens() -> Iterator[None]:
    """Within, this process's standard output and standard error are a :class:`Screen` each."""
    _fill_gaps()
    forget_no_size()
    before = sys.stdout, sys.stderr
    # Python has none where it was closed, and print takes none for standard output.
    sys.stdout = _nowhere() if sys.stdout is None else cast("io.TextIOWrapper", screen_of(sys.stdout))
    sys.stderr = _nowhere() if sys.stderr is None else cast("io.TextIOWrapper", screen_of(sys.stderr))
    try:
        yield
    finally:
        mine, (sys.stdout, sys.stderr) = (sys.stdout, sys.stderr), before
        for stream in mine:
            if isinstance(stream, Screen):
                stream.flush()
                stream.let_go()


def _nowhere() -> io.TextIOWrapper:
    """A stream that keeps nothing."""
    return open(os.devnull, "w", encoding="utf-8")


def forget_no_size() -> None:
    """Take a ``COLUMNS`` or ``LINES`` of 0, as schedulers and containers set them, for a screen of unknown size: rich
    would show nothing on one of no columns."""
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").strip("0 ") == "":
            os.environ.pop(name, None)


def _fill_gaps() -> None:
    """Let no file that is opened later become standard output or error where these were closed: libraries write to
    their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def unshown() -> str | None:
    """What standard output could not show and nobody has told of: a sentence, empty where the reader of a pipe has left
    on purpose; ``None`` where all was shown."""
    stream = sys.stdout
    if not isinstance(stream, Screen):
        return None
    stream.flush()
    if stream.lost is None or stream.is_told:
        return None
    is_left = isinstance(stream.lost, OSError) and stream.lost.errno == errno.EPIPE
    return "" if is_left else f"standard output could not be written: {stream.reason}"
