"""Rows whose FLOPs, size and times are not known: beside our own in every view, and on no front of compute."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.captions import caption
from pipelines.report.figure import draw
from pipelines.report.from_files import collect_files
from pipelines.report.latex import latex
from pipelines.report.tables import markdown
from pipelines.results.checks import problems_of
from pipelines.results.entry import OTHER, Entry
from pipelines.results.headline import headline, headlines
from pipelines.results.leaderboard import Leaderboard, read_board
from pipelines.results.looks import looks_of
from pipelines.results.merging import merged
from pipelines.results.pooling import pooled
from pipelines.results.view import View
from pipelines.tracking.metrics import row_metrics

UNKNOWN = (
    "parameters",
    "training_flops",
    "total_training_flops",
    "inference_flops_per_token",
    "wall_time_s",
    "total_wall_time_s",
    "tokens",
    "tokens_per_second",
)
MakeEntry = Callable[..., Entry]


@pytest.fixture
def ours(ablation: list[Entry]) -> list[Entry]:
    """Models of their own identities, as merging tells them apart."""
    return [row.model_copy(update={"model_identity": f"{row.trial:016x}"}) for row in ablation]


@pytest.fixture
def other(make_entry: MakeEntry) -> Entry:
    """The best score of all, at a price that nobody knows."""
    row: dict[str, Any] = {"study": "eval", "label": "gpt2", "kind": OTHER, "chunk_size": 1, "head": None}
    row |= {"autoencoder_training_flops": 0.0, "autoencoder_accuracy": None, "autoencoder_parameters": 0}
    row |= {"brier": (0.5, 0.5, 0.5, 0.5), "brierlm": 50.0, "model_identity": "feed" * 4, "text": "stdlib, split test"}
    return make_entry(**row, **dict.fromkeys(UNKNOWN))


@pytest.fixture
def board(ours: list[Entry], other: Entry) -> Leaderboard:
    return Leaderboard([*ours, other])


def test_the_best_score_without_flops_is_first_and_on_no_front(
    board: Leaderboard, ours: list[Entry], other: Entry
) -> None:
    (group,) = board.groups
    assert group.entries[0] == other
    assert group.ranks[0] == 1
    for cost in ("total_training_flops", "inference_flops_per_token", "training_flops", "parameters"):
        assert group.front(cost) == Leaderboard(ours).groups[0].front(cost)
    view = View.parse(board.entries, None, None, "parameters,brierlm", within_errors=True)
    assert all(other not in front for front in view.fronts(group).values())


def test_known_inference_flops_are_enough_for_their_front(board: Leaderboard, other: Entry) -> None:
    known = other.model_copy(update={"inference_flops_per_token": 1e5})
    (group,) = Leaderboard([*(row for row in board if row != other), known]).groups
    assert group.front("inference_flops_per_token") == (known,)
    assert known not in group.front("total_training_flops")
    assert known.compute is None


def test_tables_show_a_dash_and_say_why(board: Leaderboard) -> None:
    line = next(line for line in markdown(board).splitlines() if "gpt2" in line)
    assert line.count("–") >= 4  # noqa: RUF001 - what a table shows where there is nothing
    assert "*" not in line
    assert "What gpt2 cost is not all known" in caption(board.groups[0])
    assert "(stdlib, split test)" in caption(board.groups[0])
    assert "gpt2" in latex(board, View.parse(board.entries, None, None, None))
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(board.to_csv()))}
    assert [rows["gpt2"][name] for name in UNKNOWN] == [""] * len(UNKNOWN)


def test_files_hold_null_and_are_read_back(board: Leaderboard, tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.json"
    path.write_text(board.to_json())
    assert read_board(path).entries == board.entries
    (row,) = [row for row in json.loads(path.read_text())["groups"][0]["entries"] if row["label"] == "gpt2"]
    assert [row[name] for name in UNKNOWN] == [None] * len(UNKNOWN)


def test_rows_without_a_text_are_written_as_before(make_entry: MakeEntry) -> None:
    assert "text" not in make_entry().model_dump(mode="json")


@pytest.mark.slow
def test_the_picture_leaves_it_out(board: Leaderboard, tmp_path: Path) -> None:
    draw(board, tmp_path / "board.svg")
    drawn = (tmp_path / "board.svg").read_text()
    assert "K=4" in drawn
    assert "gpt2" not in drawn


@pytest.mark.slow
def test_a_picture_of_such_rows_alone_is_empty(other: Entry, tmp_path: Path) -> None:
    draw(Leaderboard([other]), tmp_path / "board.png")
    assert (tmp_path / "board.png").stat().st_size > 0


def test_headlines_are_those_without_it(board: Leaderboard, ours: list[Entry], other: Entry) -> None:
    assert headline(board.entries) == headline(ours)
    # What is known does not make it one of our families.
    dear = other.model_copy(
        update={"training_flops": 1e12, "total_training_flops": 1e12, "inference_flops_per_token": 1e5}
    )
    assert headline([*ours, dear]) == headline(ours)
    assert headlines([other]) == []
    with pytest.raises(ValueError, match="known FLOPs"):
        headline([other])


def test_the_page_has_it_without_a_price(board: Leaderboard, tmp_path: Path) -> None:
    (tmp_path / "board.json").write_text(board.to_json())
    report, remarks = collect_files([tmp_path / "board.json"])
    assert remarks == ()
    (shown,) = report.boards
    row = next(row for row in shown.rows if row.label == "gpt2")
    assert row.values["total_training_flops"] is None
    assert row.fronts == []
    assert row.family == OTHER


def test_it_merges_pools_and_looks_like_itself(board: Leaderboard, ours: list[Entry], other: Entry) -> None:
    found = merged([("ours", ours), ("theirs", [other]), ("again", [other])])
    assert (set(found.entries), found.remarks) == (set(board.entries), ())
    seeds = [other.model_copy(update={"seed": seed, "configuration": "c0", "trial": seed}) for seed in (0, 1)]
    (mean,) = pooled(seeds)
    assert mean.seeds == (0, 1)
    assert mean.compute is None
    looks = looks_of(board)
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(looks)


def test_mlflow_gets_no_number_for_it(other: Entry) -> None:
    sent = row_metrics(other)
    assert sent["brierlm"] == 50.0
    assert not {name for name in sent if "flops" in name or "parameters" in name} - {
        "cost/autoencoder_training_flops",
        "cost/autoencoder_parameters",
    }


@pytest.mark.parametrize("name", ["training_flops", "inference_flops_per_token"])
def test_a_price_of_zero_is_a_fault_and_null_is_none(name: str, make_entry: MakeEntry, other: Entry) -> None:
    assert any(name in told and "null" in told for told in problems_of(Leaderboard([make_entry(**{name: 0.0})])))
    assert problems_of(Leaderboard([other])) == []
