"""Results that others committed as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard, LeaderboardError, read_board
from pipelines.results.merging import merged
from pipelines.results.pooling import pooled

Make = Callable[..., Entry]


def rows(make_entry: Make, count: int, **changes: object) -> list[Entry]:
    return [
        make_entry(
            **{"label": f"m{n}", "trial": n, "seed": n, "model_identity": f"id{n}", "brierlm": float(n)} | changes
        )
        for n in range(count)
    ]


def test_a_model_counts_once_whoever_measured_its_time(make_entry: Make) -> None:
    here = rows(make_entry, 3)
    there = [
        row.model_copy(update={"wall_time_s": 1.0, "model_folder": "elsewhere", "study": "theirs", "trial": 9})
        for row in here
    ]
    found = merged([("here", here), ("there", there)])
    assert found.entries == tuple(here)
    assert found.remarks == ()


def test_other_protocols_and_models_are_rows_of_their_own(make_entry: Make) -> None:
    here = rows(make_entry, 1)
    found = merged([("here", here), ("there", rows(make_entry, 1, protocol_hash="p") + rows(make_entry, 2)[1:])])
    assert len(found.entries) == 3


def test_conflicts_are_reported_and_the_first_is_shown(make_entry: Make) -> None:
    here, there = rows(make_entry, 1), rows(make_entry, 1, brierlm=7.5, label="\x1b[2Jm")
    found = merged([("here", here), ("there", there)])
    assert found.entries == tuple(here)
    (remark,) = found.remarks
    assert "7.50" in remark
    assert "here's is shown" in remark
    assert "\x1b" not in remark


def test_an_older_copy_gains_what_pairs_need(make_entry: Make) -> None:
    old, new = rows(make_entry, 1), rows(make_entry, 1, replicates="x:AAAA")
    assert merged([("old", old), ("new", new)]).entries[0].replicates == "x:AAAA"


def test_a_mean_over_seeds_gives_way_to_all_its_seeds_only(make_entry: Make) -> None:
    seeds = rows(make_entry, 3, configuration="c")
    (mean,) = pooled(seeds)
    assert merged([("file", [mean]), ("store", seeds)]).entries == tuple(seeds)
    assert merged([("store", seeds[:2]), ("file", [mean])]).entries == (mean,)
    (part,) = pooled(seeds[1:])
    found = merged([("file", [mean]), ("other", [part])])
    assert len(found.entries) == 2
    assert "share models" in found.remarks[0]


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(LeaderboardError, match="missing"):
        read_board(tmp_path / "missing.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(LeaderboardError, match=r"other\.json is not a leaderboard"):
        read_board(tmp_path / "other.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LeaderboardError, match=r"bytes\.json"):
        read_board(tmp_path / "bytes.json")
    # As some shells write what a command prints, and as Git LFS leaves what it holds.
    (tmp_path / "wide.json").write_text(Leaderboard([]).to_json(), encoding="utf-16")
    with pytest.raises(LeaderboardError, match=r"wide\.json is UTF-16 text, .*iconv -f UTF-16"):
        read_board(tmp_path / "wide.json")
    (tmp_path / "far.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(LeaderboardError, match=r"far\.json is a Git LFS pointer .*git lfs pull"):
        read_board(tmp_path / "far.json")


@pytest.fixture
def results(make_entry: Make, tmp_path: Path) -> list[str]:
    """Two files with one model in common, as a shell's * gives them."""
    all_rows = rows(make_entry, 3)
    for name, part in (("a", all_rows[:2]), ("b", all_rows[1:])):
        (tmp_path / f"{name}.json").write_text(Leaderboard(part).to_json())
    return [str(tmp_path / "a.json"), str(tmp_path / "b.json")]


def run(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["leaderboard", *arguments], env={"COLUMNS": "200"})
    return found.exit_code, found.output


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in: no store is there, and none is named."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.mark.usefixtures("_elsewhere")
def test_files_become_one_ranking_without_a_store(results: list[str]) -> None:
    code, text = run("--format", "json", "--merge", *results)
    assert code == 0
    assert [entry.label for entry in Leaderboard.from_json(text)] == ["m2", "m1", "m0"]


@pytest.mark.usefixtures("_elsewhere")
def test_what_the_command_prints(results: list[str]) -> None:
    here = ("--merge", *results)
    assert "K=4" in run(*here, "--filter", "brierlm>1", "--headline")[1]
    assert run(*here, "--filter", "brierlm>99", "--headline")[0] != 0
    assert "K=4" not in run(*here, "--filter", "head=", "--headline")[1], "the headline is of the rows that are left"
    code, text = run(*here, "--columns", "K,brierlm", "--sort", "brierlm:asc", "--format", "csv")
    assert (code, [line.split(",")[2] for line in text.splitlines()]) == (0, ["model", "m0", "m1", "m2"])
    assert run(*here, "--format", "html")[0] != 0
    code, text = run(*here, "--format", "json", "--headline", "--at", "5")
    assert code == 0
    assert '"protocol_hash"' in text
    assert "neither" in run(*here, "--baseline", results[0])[1]
    assert run(*here, "--filter", "brierlm>99")[0] != 0
    assert run(*here, "--headline", "--format", "csv")[0] != 0
