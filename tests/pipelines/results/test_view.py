"""Columns, conditions, orders and fronts that people ask for, in every format."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable

import pytest

from calm_bench.overrides import ConfigurationError
from pipelines.report.captions import caption
from pipelines.report.export import records, records_csv, records_json
from pipelines.report.tables import markdown
from pipelines.results.columns import columns_of, find_column
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.results.view import View, filtered, front_of

Make = Callable[..., Entry]
HOSTILE = '=<script>alert("x")</script>|[link](javascript:1)'


def labels(entries: list[Entry]) -> list[str]:
    return sorted(entry.label for entry in entries)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("K=4", ["K=4"]),
        ("k != 4", ["K=1", "K=2", "K=8", "token"]),
        ("chunk_size>=4", ["K=4", "K=8"]),
        ("head=energy", ["K=1", "K=2", "K=4", "K=8"]),
        ("head!=energy", ["token"]),
        ("head=", ["token"]),
        ("model=K=*", ["K=1", "K=2", "K=4", "K=8"]),
        ("model=**=*4*", ["K=4"]),
        ("model=*=*=*", []),
        ("model=K.4", []),
        ("autoencoder_accuracy>0", ["K=1", "K=2", "K=4", "K=8"]),
        ("brierlm<-1e9", []),
        ("seeds=0", ["K=1", "K=2", "K=4", "K=8", "token"]),
    ],
)
def test_conditions(ablation: list[Entry], condition: str, kept: list[str]) -> None:
    assert labels(filtered(ablation, [condition])) == kept


def test_several_conditions_must_all_hold(ablation: list[Entry]) -> None:
    assert labels(filtered(ablation, ["K>1", "K<8"])) == ["K=2", "K=4"]
    assert filtered(ablation, []) == ablation


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("hed=energy", "did you mean 'head'"),
        ("learning_rate<1e-3", "set autoencoder.training.learning_rate or model.training.learning_rate, and only"),
        ("Model.Training.learning_rate=1", "behind these rows set model.training.learning_rate, and only"),
        ("K", "no condition"),
        ("K~4", "no condition"),
        ("=4", "no condition"),
        ("K=four", "is a number"),
        ("brierlm>nan", "nothing compares with nan"),
        ("head>a", "is text"),
        ("__class__=1", "no column"),
        ("brierlm>__import__('os')", "is a number"),
    ],
)
def test_what_is_no_condition(ablation: list[Entry], condition: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        filtered(ablation, [condition])


def test_many_stars_are_matched_at_once(ablation: list[Entry]) -> None:
    """Each star that is tried anywhere multiplies the time."""
    row = ablation[0].model_copy(update={"label": "a" * 60})
    assert filtered([row], [f"model={'*a' * 30}*b"]) == []
    assert filtered([row], [f"model={'*a' * 30}*a"]) == [row]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": "brierlm,brierm"}, "did you mean 'brierlm'"),
        ({"sort": "brierlm:up"}, "asc or desc"),
        ({"sort": "nothing"}, "no column"),
        ({"pareto": "brierlm"}, "two columns"),
        ({"pareto": "K,brierlm"}, "no better direction"),
    ],
)
def test_what_is_no_view(ablation: list[Entry], arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        View.parse(ablation, **arguments)  # type: ignore[arg-type]


def test_orders_put_the_better_first_and_the_missing_last(ablation: list[Entry]) -> None:
    (group,) = Leaderboard(ablation).groups

    def order(sort: str) -> list[str]:
        return [entry.label for _, entry in View.parse(ablation, sort=sort).order(group)]

    assert order("inference_flops_per_token") == order("inference_flops_per_token:asc")
    costs = [
        entry.inference_flops_per_token or 0.0
        for _, entry in View.parse(ablation, sort="inference_flops_per_token").order(group)
    ]
    assert costs == sorted(costs)
    assert order("autoencoder_accuracy")[-1] == order("autoencoder_accuracy:asc")[-1] == "token"
    assert order("model:asc") == ["K=1", "K=2", "K=4", "K=8", "token"]
    # Ranks stay those of the scores.
    ranks = {entry.label: rank for rank, entry in View.parse(ablation, sort="model:asc").order(group)}
    assert ranks == dict(zip([entry.label for entry in group.entries], group.ranks, strict=True))


def test_a_front_of_any_two_columns(make_entry: Make) -> None:
    rows = [
        make_entry(label="small", parameters=10, tokens_per_second=5.0),
        make_entry(label="fast", parameters=20, tokens_per_second=9.0),
        make_entry(label="neither", parameters=30, tokens_per_second=6.0),
    ]
    (group,) = Leaderboard(rows).groups
    known = columns_of(rows)
    front = front_of(group, known["parameters"], find_column("tokens/s", known))
    assert labels(front) == ["fast", "small"]
    view = View.parse(rows, pareto="parameters,tokens_per_second", columns="parameters,tokens_per_second")
    assert markdown(Leaderboard(rows), view).count(r"\*") == 2 + 1
    assert "Pareto front of Parameters and Tokens/s" in markdown(Leaderboard(rows), view)


def test_speeds_of_writing_are_a_column_with_the_way_they_were_measured(make_entry: Make) -> None:
    way = "sample T=1, 2 texts at once, cpu: arm64"
    rows = [
        make_entry(label="fast", brierlm=4.0, generated_tokens_per_second=900.0, generation=way),
        make_entry(label="good", brierlm=6.0, generated_tokens_per_second=300.0, generation=way),
        make_entry(label="beaten", brierlm=3.0, generated_tokens_per_second=400.0, generation=way),
        make_entry(label="of an old store", brierlm=9.0),
    ]
    board = Leaderboard(rows)
    (group,) = board.groups
    view = View.parse(rows, columns="generated_tokens/s,brierlm", pareto="generated_tokens_per_second,brierlm")
    (front,) = view.fronts(group).values()
    assert {entry.label for entry in front} == {"fast", "good"}
    assert [row["generated_tokens_per_second"] for row in records(board, view)] == [None, 300.0, 900.0, 400.0]
    assert [row.label for row in filtered(rows, ["generated_tokens_per_second>=400"])] == ["fast", "beaten"]
    assert f"Tokens/s generated: measured with {way}" in markdown(board, view)
    assert "measured with" not in caption(group)
    assert "measured with" not in caption(Leaderboard(rows[3:]).groups[0], view)


def test_a_front_within_errors_keeps_what_is_not_beaten_for_certain(make_entry: Make) -> None:
    rows = [
        make_entry(label="best", brierlm=5.0, brierlm_se=0.5, total_training_flops=1.0),
        make_entry(label="level", brierlm=4.8, brierlm_se=0.5, total_training_flops=2.0),
        make_entry(label="beaten", brierlm=1.0, brierlm_se=0.5, total_training_flops=2.0),
    ]
    (group,) = Leaderboard(rows).groups
    known = columns_of(rows)
    pair = known["total_training_flops"], known["brierlm"]
    assert labels(front_of(group, *pair)) == ["best"]
    assert labels(front_of(group, *pair, within_errors=True)) == ["best", "level"]
    assert "beyond the errors" in markdown(Leaderboard(rows), View(within_errors=True))


def test_every_column_shows_every_row(ablation: list[Entry]) -> None:
    for key, column in columns_of(ablation).items():
        assert find_column(key.upper(), columns_of(ablation)) is column
        assert all(column.cell(entry) for entry in ablation)


def test_records_hold_what_is_shown_with_errors(ablation: list[Entry]) -> None:
    board = Leaderboard(ablation)
    view = View.parse(ablation, columns="K,brierlm,autoencoder_accuracy", sort="K:asc")
    rows = records(board, view)
    assert list(rows[0]) == [
        "rank", "protocol_hash", "model", "chunk_size", "brierlm", "brierlm_se", "autoencoder_accuracy", "on_front",
    ]  # fmt: skip
    assert json.loads(records_json(board, view)) == rows
    read = list(csv.DictReader(io.StringIO(records_csv(board, view))))
    assert [row["chunk_size"] for row in read] == [str(row["chunk_size"]) for row in rows]
    assert {row["autoencoder_accuracy"] for row in read if row["model"] == "token"} == {""}
    assert records(Leaderboard([]), view) == []
    assert records_csv(Leaderboard([]), view).strip() == ""


def test_hostile_names_are_text_everywhere(make_entry: Make) -> None:
    board = Leaderboard([make_entry(label=HOSTILE, study="s"), make_entry(label="plain", study="t")])
    assert "<script>" not in markdown(board)
    assert "\n" + HOSTILE not in records_csv(board, View())
    assert "'=<script>" in records_csv(board, View())
