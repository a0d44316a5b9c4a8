"""Scores of lm-eval tasks as columns of the leaderboard, in every form it is written in."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from rich.console import Console

from evals.task_score import TaskScore
from pipelines.report.captions import caption
from pipelines.report.tables import markdown, print_table
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.tracking.metrics import row_metrics


def score(task: str = "stdlib_choice", value: float = 0.4, **changes: object) -> TaskScore:
    settings = {
        "task": task,
        "metric": "acc",
        "value": value,
        "standard_error": 0.03,
        "monte_carlo_error": 0.04,
        "num_documents": 200,
        "num_samples": 64,
        "scorer": "decoder",
        "protocol_hash": "aaaa",
    }
    return TaskScore.model_validate(settings | changes)


@pytest.fixture
def board(make_entry: Callable[..., Entry]) -> Leaderboard:
    exact = score(value=0.6, monte_carlo_error=0.0, num_samples=0, scorer="exact")
    return Leaderboard(
        [
            make_entry(label="K=4", tasks=(score(), score("last_word", 0.1))),
            make_entry(label="token", trial=1, tasks=(exact,)),
        ]
    )


def test_a_table_shows_every_task(board: Leaderboard) -> None:
    text = io.StringIO()
    print_table(board, Console(file=text, width=250))
    assert "40.0±3.0" in text.getvalue()
    assert "60.0±3.0" in text.getvalue()
    narrow = io.StringIO()
    print_table(board, Console(file=narrow, width=80))
    assert "last_word" in narrow.getvalue()
    assert "choices are compared by decoder" in " ".join(narrow.getvalue().split())


def test_prompts_that_lost_their_beginning_are_said_once_a_task(make_entry: Callable[..., Entry]) -> None:
    cut = score(num_truncated=3)
    rows = [make_entry(tasks=(cut, score("last_word"))), make_entry(trial=1, tasks=(score(num_truncated=7),))]
    told = "Prompts longer than what is read lost their beginning: 7 of stdlib_choice. "
    assert told in caption(Leaderboard(rows).groups[0])
    assert "lost their beginning" not in caption(Leaderboard([make_entry(tasks=(score(),))]).groups[0])


def test_markdown_and_csv(board: Leaderboard) -> None:
    assert "stdlib\\_choice" in markdown(board)
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(board.to_csv()))}
    assert float(rows["K=4"]["task_last_word"]) == 0.1
    assert float(rows["K=4"]["task_stdlib_choice_se"]) == 0.03
    assert rows["token"]["task_last_word"] == ""
    assert "tasks" not in rows["token"]


def test_json_comes_back(board: Leaderboard) -> None:
    assert Leaderboard.from_json(board.to_json()).entries == board.entries


def test_a_task_under_two_protocols_has_two_columns(make_entry: Callable[..., Entry]) -> None:
    rows = [
        make_entry(label="a", tasks=(score(),)),
        make_entry(label="b", trial=1, tasks=(score(protocol_hash="bbbb"),)),
    ]
    lines = markdown(Leaderboard(rows)).splitlines()
    assert lines[0].count("stdlib") == 2
    assert all(line.count("40.0±3.0") == 1 for line in lines[2:4])


def test_mlflow_gets_value_and_error(make_entry: Callable[..., Entry]) -> None:
    metrics = row_metrics(make_entry(tasks=(score(),)))
    assert metrics["task/stdlib_choice"] == 0.4
    assert metrics["error/stdlib_choice"] == 0.03
    assert metrics["error/stdlib_choice_draws"] == 0.04


def test_without_tasks_nothing_is_said_of_them(make_entry: Callable[..., Entry]) -> None:
    assert "Tasks" not in caption(Leaderboard([make_entry()]).groups[0])


def test_other_metrics_stand_beside_accuracy(make_entry: Callable[..., Entry]) -> None:
    rows = [make_entry(tasks=(score(), score(metric="bits_per_byte", value=2.5, standard_error=None)))]
    text = markdown(Leaderboard(rows))
    assert "stdlib_choice bits_per_byte" in text.replace("\\", "")
    assert "| 2.50 |" in text
