"""Pictures on machines whose matplotlib is set up for something else: they are drawn, or cost a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.report import leaderboard_files
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard

SCRIPT = """
import os, sys
from pathlib import Path
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.results.leaderboard import Leaderboard

board = Leaderboard.from_json(Path(sys.argv[1]).read_text())
print(*sorted(write_leaderboard(board, Path(sys.argv[2]))))
import matplotlib
print(os.environ.get("MPLBACKEND"), matplotlib.rcParams["backend"])
"""


def run(ablation: list[Entry], tmp_path: Path, **variables: str) -> list[str]:
    """What is written, and how the process stands afterwards, where matplotlib finds these variables."""
    board = tmp_path / "board.json"
    board.write_text(Leaderboard(ablation).to_json())
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", SCRIPT, str(board), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_the_backend_of_a_notebook_changes_nothing(ablation: list[Entry], tmp_path: Path, backend: str) -> None:
    files, after = run(ablation, tmp_path, MPLBACKEND=backend)
    assert files == "csv json md png svg"
    assert after.startswith(f"{backend} "), "what else this process draws is none of our business"


def test_a_backend_that_is_there_stays_the_process_own(ablation: list[Entry], tmp_path: Path) -> None:
    assert run(ablation, tmp_path, MPLBACKEND="svg")[1] == "svg svg"


def test_tables_are_written_where_nothing_can_be_drawn(ablation: list[Entry], tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    empty = tmp_path / "no-programs"
    empty.mkdir()
    said, files, _ = run(ablation, tmp_path, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"), PATH=str(empty))
    assert said.startswith("leaderboard.png could not be drawn (")
    assert files == "csv json md"


def test_a_picture_never_stands_beside_tables_of_other_rows(
    ablation: list[Entry], make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    before = write_leaderboard(Leaderboard(ablation), tmp_path)["png"].read_bytes()
    more = Leaderboard([*ablation, make_entry(label="more", trial=9, brierlm=12.0)])
    after = write_leaderboard(more, tmp_path)["png"]
    assert after.read_bytes() != before
    # As a killed process leaves it: tables without their picture are drawn again.
    after.unlink()
    assert write_leaderboard(more, tmp_path)["png"].exists()


def test_drivers_that_end_together_all_have_the_picture(
    ablation: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one draws, another finds the same tables without a picture."""
    draw, others = leaderboard_files._draw, list[dict[str, Path]]()

    def meanwhile(leaderboard: Leaderboard, paths: list[Path]) -> None:
        draw(leaderboard, paths)
        before = [path.stat().st_ino for path in paths]
        monkeypatch.setattr(leaderboard_files, "_draw", lambda *_: pytest.fail("drawn again"))
        others.append(write_leaderboard(leaderboard, tmp_path))
        assert [path.stat().st_ino for path in paths] == before
        # A driver that knew other rows a moment ago draws anew.
        paths[0].unlink()

    monkeypatch.setattr(leaderboard_files, "_draw", meanwhile)
    written = write_leaderboard(Leaderboard(ablation), tmp_path)
    assert sorted(written) == sorted(others[0]) == ["csv", "json", "md", "png", "svg"]


def test_seeds_of_a_configuration_are_one_point(make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    rows = [
        make_entry(label=f"token, seed={seed}", seed=seed, trial=seed, configuration="c", brierlm=10.0 + seed)
        for seed in range(3)
    ]
    written = write_leaderboard(Leaderboard(rows), tmp_path)
    picture = written["svg"].read_text(encoding="utf-8")
    assert "seed=" not in picture
    assert picture.count("<!-- token -->") == 2, "once in each panel"
    assert written["csv"].read_text().count("seed=") == 3, "every row is in the tables"
