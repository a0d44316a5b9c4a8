"""A study's progress beside its run: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from calm_bench.overrides import ConfigurationError
from pipelines.common.numbers import duration
from pipelines.common.sanitize import without_controls
from pipelines.common.screen import is_live, why_lost
from pipelines.execution import events
from pipelines.monitor.panel import panel
from pipelines.monitor.recording import Recording
from pipelines.monitor.tracker import Tracker
from pipelines.monitor.view import Said

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

REFRESH_S = 1.0
"""The scheduler itself looks no more often."""
LEVEL_STYLES = {"info": "", "good": "green", "warning": "yellow", "error": "red"}


def _add(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(text)


class Progress:
    """Shows a study while it runs, and records it for those who watch; a listener and a context manager."""

    def __init__(self, console: Console, log: Path | None = None) -> None:
        """
        Args:
            log: a file to which every line is added too, whatever is shown, as long as it takes them.

        Raises:
            ConfigurationError: nothing can be added to ``log``.
        """
        if log is not None:
            try:
                _add(log, "")
            except OSError as error:
                raise ConfigurationError(
                    f"--log-file {log} cannot be written to ({error.strerror or error}): name a file in a folder that "
                    "is there"
                ) from None
        self._console = console
        self._log = log
        self.tracker = Tracker(self._tell)
        self._recording = Recording(self.tracker)
        self._is_lost_told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recording.close(error)

    def handle(self, event: events.Event) -> None:
        self.tracker.handle(event)
        if isinstance(event, events.StudyStarted):
            self._recording.start(event.folder)
        if not self._is_lost_told and (reason := why_lost(self._console.file)):
            self._is_lost_told = True
            self.message(f"standard output takes no more ({reason}); the study goes on")

    def message(self, text: str) -> None:
        """Print a line that is no event of the study's."""
        self.tracker.say(text, "warning")

    def stopping(self, reason: str) -> None:
        """Say at once that the study was asked to stop; from any thread."""
        self.tracker.stopping(reason)

    def _tell(self, said: Said) -> None:
        if self._log is not None:
            log, now = self._log, datetime.now().astimezone().isoformat(timespec="seconds")
            try:
                _add(log, f"{now} {said.level} {said.text}\n")
            except OSError as error:
                # No result depends on who can read of it.
                self._log = None
                self.message(f"{log} takes no more lines ({error.strerror or error}); the study goes on without it")
        self._said(said)

    def _said(self, said: Said) -> None:
        raise NotImplementedError


class PlainProgress(Progress):
    """One line an event; of a stage, one line each tenth of the way; of a large study, its trials only."""

    def _said(self, said: Said) -> None:
        print_said(self._console, said)


class QuietProgress(Progress):
    """Warnings and errors only."""

    def _said(self, said: Said) -> None:
        if said.level in ("warning", "error"):
            print_said(self._console, said)


class RichProgress(Progress):
    """A live display; warnings and errors stay above it as lines."""

    def __init__(self, console: Console, log: Path | None = None) -> None:
        super().__init__(console, log)
        self._live: Live | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(self.screen(), console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        self._thread = threading.Thread(target=self._refresh, name="display", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._live is not None:
            self._live.stop()
        super().__exit__(kind, error, trace)

    def screen(self) -> Text:
        """The display as it is now."""
        return panel(self.tracker.view(), self._console.width, self._console.height)

    def _refresh(self) -> None:
        assert self._live is not None
        while not self._ended.wait(REFRESH_S):
            self._live.update(self.screen(), refresh=True)

    def _said(self, said: Said) -> None:
        if said.level in ("warning", "error") or said.text.startswith("everything is there"):
            self._console.print(
                without_controls(said.text), style=LEVEL_STYLES[said.level], markup=False, highlight=False
            )


def progress_for(
    console: Console, how: Literal["auto", "plain", "quiet"] = "auto", log: Path | None = None
) -> Progress:
    """A live display where ``console`` is a terminal, lines where it is a pipe, a file or a notebook's cell.

    Args:
        how: ``plain`` prints lines in a terminal too, ``quiet`` warnings and errors only.
        log: as of :class:`Progress`.
    """
    if how == "quiet":
        return QuietProgress(console, log)
    return RichProgress(console, log) if how == "auto" and is_live(console) else PlainProgress(console, log)


def print_said(console: Console, said: Said) -> None:
    """A line with the time since the study's start."""
    text = without_controls(said.text)
    console.print(f"[{duration(said.elapsed_s)}] {text}", markup=False, highlight=False, soft_wrap=True)
