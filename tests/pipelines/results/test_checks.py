"""Files of results that are in order, and every way in which they may not be."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.app.cli import app
from pipelines.results.checks import problems_of
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard, LeaderboardError, read_board
from pipelines.results.pooling import pooled

Make = Callable[..., Entry]
KEPT = Path(__file__).parents[1] / "store/kept/studies"


def test_rows_of_a_run_are_in_order(make_entry: Make) -> None:
    assert problems_of(Leaderboard([make_entry()])) == []
    (file,) = KEPT.glob("*/leaderboard.json")
    board = read_board(file)
    assert len(board)
    assert problems_of(board) == []
    assert problems_of(Leaderboard(pooled(board))) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"protocol_hash": "mine"}, "protocol_hash is 'mine'"),
        ({"corpus_digest": ""}, "corpus_digest"),
        ({"model_identity": ""}, "model_identity"),
        ({"num_documents": 0}, "num_documents is 0"),
        ({"brier_se": (0.006, 0.0, 0.002, 0.001)}, "Brier-2 has no standard error"),
        ({"brierlm_se": 0.0}, "with the error 0"),
        ({"brierlm": 30.0}, "its components give 10.87"),
        ({"brier": (1.2, 0.132, 0.078, 0.045), "brierlm": 15.36}, "no forecast"),
        ({"training_flops": 0.0}, "cost something"),
        ({"total_training_flops": 5.2e12}, "less than its parts"),
    ],
)
def test_what_is_wrong_is_said(make_entry: Make, changes: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(Leaderboard([make_entry(**changes)]))
    assert problem in found
    assert found.startswith("K=4 (trial 0): ")


def test_a_clipped_score_is_in_order(make_entry: Make) -> None:
    row = make_entry(brier=(0.3, 0.1, 0.01, -0.001), brierlm=0.0, brierlm_se=0.0)
    assert problems_of(Leaderboard([row])) == []


def test_the_command_ends_by_what_it_found(make_entry: Make, tmp_path: Path) -> None:
    good, bad, other = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "other.json"
    good.write_text(Leaderboard([make_entry()]).to_json())
    bad.write_text(Leaderboard([make_entry(brierlm=30.0, label="\x1b[2Jm")]).to_json())
    other.write_text("[]")
    assert CliRunner().invoke(app, ["check", str(good)]).exit_code == 0
    ended = CliRunner().invoke(app, ["check", str(good), str(bad), str(other)])
    assert ended.exit_code == 1
    assert "good.json: 1 row in order" in ended.output
    assert "components give" in ended.output
    assert "other.json is not a leaderboard" in ended.output
    assert "\x1b[2J" not in ended.output


def test_files_as_others_send_them(tmp_path: Path, make_entry: Make) -> None:
    text = Leaderboard([make_entry()]).to_json()
    path = tmp_path / "it's % \n é.json"
    for written in (b"\xef\xbb\xbf" + text.encode(), text.replace("\n", "\r\n").encode()):
        path.write_bytes(written)
        assert len(read_board(path)) == 1
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    assert len(read_board(pipe)) == 1
    writer.join()
    twice = text.replace('"trial":', '"brierlm": 99.0, "trial":', 1)
    for sent, message in (
        (gzip.compress(text.encode()), "compressed: unpack it first, with `gunzip < FILE > NEW`"),
        (b"PK\x03\x04rest", "with `unzip -p FILE > NEW`"),
        (text.encode("utf-16"), "iconv -f UTF-16"),
        (twice.encode(), "it gives 'brierlm' twice"),
        (b"[" * 100_000, "not JSON .lists or objects in each other without end"),
    ):
        path.write_bytes(sent)
        with pytest.raises(LeaderboardError, match=message):
            read_board(path)
