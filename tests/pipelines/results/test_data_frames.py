"""Leaderboards in pandas: what is text stays text, whatever it looks like, and only what is empty is missing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas

from pipelines.app.entrance.study import StudyResult
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard

NAMES = ["007", "1e3", "NA", "None", "nan", "null", "true"]
HASH = "12e4567890123456"


def board(make_entry: Callable[..., Entry]) -> Leaderboard:
    return Leaderboard(
        [
            make_entry(label=name, trial=number, brierlm=9.0 - number, protocol_hash=HASH, training_flops=None)
            for number, name in enumerate(NAMES)
        ]
    )


def test_a_data_frame_has_the_labels_and_hashes_of_the_rows(make_entry: Callable[..., Entry]) -> None:
    frame = StudyResult(board(make_entry), Path("study"), "runs").to_pandas()
    assert frame["label"].tolist() == NAMES
    assert frame["protocol_hash"].tolist() == [HASH] * len(NAMES)
    assert frame["brierlm"].tolist() == [9.0 - number for number in range(len(NAMES))]
    assert frame["training_flops"].isna().all()


def test_the_file_is_read_as_the_documentation_says(make_entry: Callable[..., Entry]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "compatibility.md").read_text(encoding="utf-8")
    told = re.search(r"`pandas\.read_csv\(FILE, (.*?)\)`", page)
    assert told is not None
    options = eval(f"dict({told[1]})")
    frame = pandas.read_csv(io.StringIO(board(make_entry).to_csv()), **options)
    assert frame["label"].tolist() == NAMES
    assert frame["protocol_hash"].tolist() == [HASH] * len(NAMES)
    assert frame["training_flops"].isna().all()
