"""What is said of the time that is left, and where it is said."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from pipelines.monitor.display import PlainProgress, progress_for
from pipelines.monitor.tracker import time_left
from pipelines.monitor.view import StudyView


def test_nothing_known_is_not_nothing_left() -> None:
    view = StudyView(study="smoke", folder="runs", num_trials=4, complete=1, remaining_s=0.2, unpriced=("evaluation",))
    assert time_left(view) == "time left not known yet (no evaluation has ended)"
    assert (
        time_left(view.model_copy(update={"remaining_s": 61.0})) == "at least 1:01 left (no evaluation has ended yet)"
    )
    assert time_left(view.model_copy(update={"remaining_s": 0.2, "unpriced": ()})).startswith("about")


def test_a_log_file_has_every_line_whatever_is_shown(tmp_path: Path) -> None:
    shown, log = io.StringIO(), tmp_path / "run.log"
    progress = progress_for(Console(file=shown, width=80), "quiet", log)
    progress.tracker.say("a line", "info")
    progress.message("a warning")
    assert "a line" not in shown.getvalue()
    assert "a warning" in shown.getvalue()
    lines = log.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["info a line", "warning a warning"]
    assert isinstance(progress_for(Console(file=shown, force_terminal=True), "plain"), PlainProgress)
