"""A page of files of results, without a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.report.page import data_of
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def files(tmp_path: Path, make_entry: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two people's results: three models each, one of them the same with another score."""
    monkeypatch.chdir(tmp_path)
    for person, numbers in (("ada", (0, 1, 2)), ("bob", (2, 3, 4))):
        rows = [
            make_entry(
                study=person,
                label=f"m{n}",
                trial=n,
                model_identity=f"id{n}",
                brierlm=float(n + 1 + (person == "bob")),
                total_training_flops=1e12 * (n + 1),
            )
            for n in numbers
        ]
        Path(f"{person}.json").write_text(Leaderboard(rows).to_json())
    return ["ada.json", "bob.json"]


def test_rows_of_all_files_stand_on_one_page(files: list[str]) -> None:
    ended = CliRunner().invoke(app, ["report", "--merge", *files, "-o", "board.html"])
    assert ended.exit_code == 0, ended.output
    assert "ada.json's is shown" in ended.stderr
    data = data_of(Path("board.html").read_text(encoding="utf-8"))
    (board,) = data["boards"]
    assert [(row["label"], row["study"]) for row in board["rows"]] == [
        ("m4", "bob"),
        ("m3", "bob"),
        ("m2", "ada"),
        ("m1", "ada"),
        ("m0", "ada"),
    ]
    assert [study["name"] for study in data["studies"]] == ["ada", "bob"]
    assert not Path("runs").exists()


def test_what_is_no_leaderboard_writes_nothing(files: list[str]) -> None:
    Path("bob.json").write_text("{}")
    ended = CliRunner().invoke(app, ["report", "--merge", *files])
    assert ended.exit_code == 1
    assert not Path("report.html").exists()
    Path("none.json").write_text(Leaderboard([]).to_json())
    assert CliRunner().invoke(app, ["report", "--merge", "none.json"]).exit_code != 0
    assert CliRunner().invoke(app, ["report", "study", "--merge", "ada.json"]).exit_code != 0


@pytest.mark.slow
def test_the_page_works_in_a_browser(files: list[str], chromium: Browser) -> None:
    assert CliRunner().invoke(app, ["report", "--merge", *files]).exit_code == 0
    page = chromium.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(Path("report.html").absolute().as_uri())
    page.get_by_text("m4").first.wait_for()
    assert page.title() == "ada · bob · calm-bench report"
    assert faults == []
