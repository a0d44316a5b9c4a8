"""What is said of the time that is left, and where it is said."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from calm_bench.overrides import ConfigurationError
from pipelines.monitor.display import PlainProgress, progress_for
from pipelines.monitor.tracker import time_left
from pipelines.monitor.view import StudyView


def test_nothing_known_is_not_nothing_left() -> None:
    view = StudyView(study="smoke", folder="runs", num_trials=4, complete=1, remaining_s=0.2, unpriced=("evaluation",))
    assert time_left(view) == "time left not known yet (no evaluation stage has ended)"
    later = view.model_copy(update={"remaining_s": 61.0, "unpriced": ("language_model", "samples")})
    assert time_left(later) == "at least 1:01 left (no language model or samples stage has ended yet)"
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


def test_a_log_file_that_takes_no_more_costs_no_study(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    with pytest.raises(ConfigurationError, match="in a folder that is there"):
        progress_for(Console(), "quiet", log)
    log.parent.mkdir()
    for gone in (log, Path("/dev/full")):
        shown = io.StringIO()
        progress = progress_for(Console(file=shown, width=200), "plain", gone)
        progress.tracker.say("before", "info")
        shutil.rmtree(log.parent)
        for text in ("one", "two"):
            progress.tracker.say(text, "info")
        assert shown.getvalue().count("takes no more lines") == 1
        assert [line for line in ("before", "one", "two") if line not in shown.getvalue()] == []
        log.parent.mkdir()
