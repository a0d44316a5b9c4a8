from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pipelines.search.trial_queue import TrialQueue, TrialRequest, TrialResult
from pipelines.search.trial_storage import Journal
from pipelines.study.search_settings import Search

GRID = Search.model_validate({"parameters": [{"name": "seed", "values": [0, 1, 2]}]})
RANGES: list[dict[str, Any]] = [
    {"name": "x", "low": 0.0, "high": 1.0},
    {"name": "n", "low": 1, "high": 9, "integer": True},
]


def _search(sampler: str, num_trials: int = 14) -> Search:
    return Search.model_validate(
        {"sampler": sampler, "num_trials": num_trials, "parameters": RANGES, "concurrent_trials": 3}
    )


def _score(asked: TrialRequest) -> float:
    return -((float(asked.point["x"] or 0) - 0.3) ** 2) - float(asked.point["n"] or 0)


def _play(path: Path, search: Search, order: random.Random, drivers: int = 1) -> list[dict[str, Any]]:
    """Tell trials in a random order, by as many drivers in turn, each of which forgets what it had not told."""
    for _ in range(drivers * 20):
        trial_queue = TrialQueue(Journal(path, "study"), search, seed=1)
        open_trials = [asked for asked in trial_queue.new_trials() if asked.state == "open"]
        steps = 0
        while open_trials and (drivers == 1 or steps < 3):
            asked = open_trials.pop(order.randrange(len(open_trials)))
            trial_queue.tell(asked.number, TrialResult([_score(asked)]))
            open_trials += trial_queue.new_trials()
            steps += 1
        if not open_trials:
            break
    trials = TrialQueue(Journal(path, "study"), search, seed=1).new_trials()
    assert {asked.state for asked in trials} == {"complete"}
    return [dict(asked.point) for asked in trials]


def test_a_grid_is_asked_once(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    trial_queue = TrialQueue(Journal(path, "study"), GRID, seed=0)
    assert [asked.point for asked in trial_queue.new_trials()] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    assert trial_queue.new_trials() == []
    trial_queue.tell(1, TrialResult([2.0]))
    again = TrialQueue(Journal(path, "study"), GRID, seed=0)
    assert [(asked.number, asked.state) for asked in again.new_trials()] == [(0, "open"), (1, "complete"), (2, "open")]
    trial_queue.tell(0, TrialResult(error="it broke"))
    again.tell(0, TrialResult([1.0]))
    assert TrialQueue(Journal(path, "study"), GRID, seed=0).new_trials()[0] == TrialRequest(
        0, {"seed": 0}, "failed", "it broke"
    )


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_proposals_do_not_depend_on_who_is_faster(tmp_path: Path, sampler: str) -> None:
    search = _search(sampler)
    plays = [_play(tmp_path / str(seed), search, random.Random(seed)) for seed in range(3)]
    assert plays[0] == plays[1] == plays[2]
    assert len({point["x"] for point in plays[0]}) == 14, "every trial has a random stream of its own"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_proposals_do_not_depend_on_interruptions(tmp_path: Path, sampler: str) -> None:
    search = _search(sampler)
    undisturbed = _play(tmp_path / "one", search, random.Random(0))
    assert _play(tmp_path / "two", search, random.Random(1), drivers=2) == undisturbed


def test_tpe_proposes_no_further_than_it_may(tmp_path: Path) -> None:
    trial_queue = TrialQueue(Journal(tmp_path / "journal", "study"), _search("tpe"), seed=0)
    assert [asked.number for asked in trial_queue.new_trials()] == [0, 1, 2]
    trial_queue.tell(2, TrialResult([0.0]))
    assert trial_queue.new_trials() == []
    trial_queue.tell(0, TrialResult([0.0]))
    assert [asked.number for asked in trial_queue.new_trials()] == [3]
    trial_queue.tell(1, TrialResult([0.0]))
    assert [asked.number for asked in trial_queue.new_trials()] == [4, 5]


def test_a_longer_search_continues_a_shorter_one(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    short = _play(path, _search("random", 4), random.Random(0))
    assert _play(path, _search("random", 6), random.Random(0))[:4] == short


def test_failed_trials_are_tried_again_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    trial_queue = TrialQueue(Journal(path, "study"), GRID, seed=0)
    for asked in trial_queue.new_trials():
        trial_queue.tell(asked.number, TrialResult(error="out of luck") if asked.number == 1 else TrialResult([1.0]))
    assert [asked.state for asked in TrialQueue(Journal(path, "study"), GRID, 0).new_trials()] == [
        "complete",
        "failed",
        "complete",
    ]
    again = TrialQueue(Journal(path, "study"), GRID, 0, retry_failed=True)
    retried = [asked for asked in again.new_trials() if asked.state == "open"]
    assert [asked.point for asked in retried] == [{"seed": 1}]
    again.tell(retried[0].number, TrialResult([1.0]))
    found = TrialQueue(Journal(path, "study"), GRID, 0, retry_failed=True).new_trials()
    assert sorted((asked.point["seed"], asked.state) for asked in found) == [(n, "complete") for n in range(3)]


def test_a_half_written_line_does_not_spoil_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    TrialQueue(Journal(path, "study"), GRID, seed=0).tell(0, TrialResult([1.0]))
    with path.open("a") as file:
        file.write('{"op_code": 6, "wor')
    trial_queue = TrialQueue(Journal(path, "study"), GRID, seed=0)
    trial_queue.tell(1, TrialResult([1.0]))
    states = [asked.state for asked in TrialQueue(Journal(path, "study"), GRID, seed=0).new_trials()]
    assert states == ["complete", "complete", "open"]
