from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pipelines.execution.follow import Follower
from pipelines.study.stage import Stage


def _line(step: int) -> str:
    return json.dumps({"step": step, "total_steps": 9, "split": "train", "tokens": 8 * step, "metrics": {"loss": 1.5}})


def test_each_whole_line_is_told_once(tmp_path: Path, toy: Callable[..., Stage]) -> None:
    work, final = tmp_path / "work", tmp_path / "final"
    follower = Follower(toy("draw"), work, final)
    assert list(follower.news()) == []
    work.mkdir()
    metrics = work / "metrics.jsonl"
    metrics.write_text(_line(1) + "\n" + _line(2)[:10])
    assert [progress.step for progress in follower.news()] == [1]
    metrics.write_text(_line(1) + "\n" + _line(2) + "\n")
    news = list(follower.news())
    assert [(progress.step, progress.total_steps, progress.tokens) for progress in news] == [(2, 9, 16.0)]
    assert news[0].metrics == {"loss": 1.5}
    with metrics.open("a") as file:
        file.write(_line(3) + "\n")
    work.rename(final)
    assert [progress.step for progress in follower.news()] == [3]
    assert list(follower.news()) == []


def test_a_resumed_stage_is_followed_from_its_checkpoint(tmp_path: Path, toy: Callable[..., Stage]) -> None:
    metrics = tmp_path / "metrics.jsonl"
    follower = Follower(toy("draw"), tmp_path, tmp_path / "final")
    metrics.write_text("".join(_line(step) + "\n" for step in (1, 2, 3)))
    assert len(list(follower.news())) == 3
    metrics.write_text(_line(1) + "\n")
    assert list(follower.news()) == []
    with metrics.open("a") as file:
        file.write(_line(2) + "\n")
    assert [progress.step for progress in follower.news()] == [2]


def test_a_log_that_was_cut_and_has_outgrown_its_former_end_is_told_again(
    tmp_path: Path, toy: Callable[..., Stage]
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    follower = Follower(toy("draw"), tmp_path, tmp_path / "final")
    metrics.write_text("".join(_line(step) + "\n" for step in (1, 2, 3)))
    assert len(list(follower.news())) == 3
    # Back to step 1, and on from there at another pace.
    metrics.write_text("".join(_line(step) + "\n" for step in (1, 4, 7, 8)))
    assert [progress.step for progress in follower.news()] == [1, 4, 7, 8]
    assert list(follower.news()) == []
