"""Options of ``leaderboard`` that no table or picture can come of are refused before one is printed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calm_bench.overrides import ConfigurationError
from pipelines.app.cli import app
from pipelines.app.commands.leaderboard import _where_rows_come_from
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard


@pytest.fixture
def rows(make_entry: Callable[..., Entry], tmp_path: Path) -> str:
    path = tmp_path / "rows.json"
    path.write_text(Leaderboard([make_entry()]).to_json())
    return str(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--picture", "x.foo"], r"--picture x\.foo: the name must end in \.png, \.svg, \.pdf, \.pgf"),
        (["--picture", "x"], "the name must end in"),
        (["--picture", "/nowhere/x.png"], "there is no folder /nowhere: name a file in a folder that is there"),
        (["--headline", "--at", "nan"], "--at nan is no BrierLM: scores are from 0 to 100"),
        (["--at", "-5"], "--at -5 is no BrierLM"),
        (["--baseline", "NOWHERE"], "there is no leaderboard NOWHERE to compare with"),
        (["--baseline", "/proc"], "there is no leaderboard /proc to compare with"),
        (["--picture", "x.svg", "--size", "9"], "--size 9: width and height in inches"),
    ],
)
def test_what_cannot_be_is_refused(options: list[str], message: str, rows: str) -> None:
    done = CliRunner().invoke(app, ["leaderboard", "--merge", rows, *options])
    assert isinstance(done.exception, ConfigurationError)
    with pytest.raises(ConfigurationError, match=message):
        raise done.exception
    assert done.stdout == ""


def test_an_older_leaderboard_may_come_from_a_command(rows: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    # Where the pipe is refused nobody reads it, and who writes would wait for ever.
    text = Path(rows).read_text()
    threading.Thread(target=lambda: (tmp_path / "pipe").write_text(text), daemon=True).start()
    words = ["leaderboard", "--merge", rows, "--baseline", str(tmp_path / "pipe"), "--format", "json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert json.loads(done.stdout)["groups"]
    assert "neither" in done.stderr


def test_where_rows_come_from_is_a_setting_that_a_shell_takes() -> None:
    """Of a server with a password the variable that it comes from, which was three asterisks."""
    told = _where_rows_come_from(None, "https://me:secret@host.example", [])
    assert 'run with "tracking.uri=${MLFLOW_TRACKING_URI:?}" sends' in told
    assert "run with tracking.uri=sqlite:///m.db sends" in _where_rows_come_from(None, "sqlite:///m.db", [])
