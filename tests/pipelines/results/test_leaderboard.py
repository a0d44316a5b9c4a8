from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.task_score import TaskScore
from pipelines.report.export import records_csv
from pipelines.report.leaderboard_files import write_leaderboard
from pipelines.results.entry import Entry, IncompleteOutcome, entry_from
from pipelines.results.leaderboard import Leaderboard, LeaderboardError, read_board
from pipelines.results.pareto import pareto_front
from pipelines.results.view import View
from pipelines.study.config import Study
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.trial import TrialOutcome


def dominated_by_any(point: tuple[float, float], points: list[tuple[float, float]]) -> bool:
    """The definition, word for word."""
    return any(cost <= point[0] and score >= point[1] and (cost, score) != point for cost, score in points)


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_the_definition_says_also_with_ties_and_duplicates(seed: int) -> None:
    stream = random.Random(seed)
    points = [(float(stream.randint(1, 6)), float(stream.randint(-3, 3))) for _ in range(30)]
    assert pareto_front(points) == [not dominated_by_any(point, points) for point in points]


def test_a_point_without_a_number_is_not_on_the_front_and_hides_nobody() -> None:
    points = [(1.0, None), (None, 9.0), (1.0, float("nan")), (2.0, 1.0), (float("inf"), 5.0)]
    assert pareto_front(points) == [False, False, False, True, False]
    assert pareto_front([]) == []


def test_rows_are_ranked_by_score_whatever_their_order_and_count_once(ablation: list[Entry]) -> None:
    shuffled = [*ablation, ablation[2]]
    random.Random(1).shuffle(shuffled)
    assert Leaderboard(shuffled).entries == Leaderboard(ablation).entries
    assert [entry.label for entry in Leaderboard(shuffled)] == ["token", "K=1", "K=2", "K=4", "K=8"]


def test_ties_have_one_order(make_entry: Callable[..., Entry]) -> None:
    rows = [make_entry(label=label, trial=trial) for trial, label in enumerate("cabd")]
    assert Leaderboard(rows).entries == Leaderboard(rows[::-1]).entries


def test_protocols_are_never_ranked_together(ablation: list[Entry], make_entry: Callable[..., Entry]) -> None:
    other = make_entry(label="other", brierlm=99.0, total_training_flops=1.0, protocol_hash="ffff")
    groups = Leaderboard([*ablation, other]).groups
    assert [len(group.entries) for group in groups] == [5, 1]
    assert [entry.label for entry in groups[0].front()] == ["K=8", "K=4", "K=2", "token"]
    assert groups[1].front() == (other,)


def test_json_is_read_back_as_it_was_written(ablation: list[Entry]) -> None:
    leaderboard = Leaderboard(ablation)
    again = Leaderboard.from_json(leaderboard.to_json())
    assert again.entries == leaderboard.entries
    assert again.to_json() == leaderboard.to_json()
    fronts = json.loads(leaderboard.to_json())["groups"][0]["pareto_front"]
    assert [row["label"] for row in fronts["inference_flops_per_token"]] == ["K=8", "K=4", "K=2", "token"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "not JSON"),
        ("[]", "lacks the line"),
        ('{"format": "calm-bench leaderboard", "version": 2}', "version 2"),
        ('{"format": "calm-bench leaderboard", "version": 1}', "damaged.*groups must be a list"),
        ('{"format": "calm-bench leaderboard", "version": 1, "groups": {}}', "damaged.*groups must be a list"),
        ('{"format": "calm-bench leaderboard", "version": ' + "9" * 5000 + "}", "not JSON .Exceeds the limit"),
        ('{"format": "calm-bench leaderboard", "version": 1, "groups": [{"entries": [{"a": 1}]}]}', "damaged"),
    ],
)
def test_another_file_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(LeaderboardError, match=message):
        Leaderboard.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"brierlm": math.nan},
            r"damaged leaderboard: row 1 \(K=4\): brierlm: input should be a finite number, found nan",
        ),
        ({"brierlm_se": -1.0}, r"row 1 \(K=4\): brierlm_se: input should be greater than or equal to 0, found -1.0$"),
        ({"label": None}, "row 1: label: input should be a valid string, found None$"),
        ({"zzz": 1}, r"fields that this calm-bench does not know \(row 1 \(K=4\): zzz\): .*update calm-bench"),
    ],
)
def test_a_row_that_cannot_be_is_named(
    changes: dict[str, Any], message: str, make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    document = json.loads(Leaderboard([make_entry()]).to_json())
    document["groups"][0]["entries"][0] |= changes
    (tmp_path / "rows.json").write_text(json.dumps(document))
    with pytest.raises(LeaderboardError, match=message) as refused:
        read_board(tmp_path / "rows.json")
    assert "pydantic" not in str(refused.value)


def test_csv_has_one_line_a_row_and_one_column_a_number(make_entry: Callable[..., Entry]) -> None:
    row = make_entry(label='a "quoted", label\nwith a line', autoencoder_accuracy=None)
    (line,) = list(csv.DictReader(io.StringIO(Leaderboard([row]).to_csv())))
    assert line["label"] == row.label
    assert line["rank"] == "1"
    assert [float(line[f"brier_{n}"]) for n in range(1, 5)] == list(row.brier)
    assert [float(line[f"brier_{n}_se"]) for n in range(1, 5)] == list(row.brier_se)
    assert float(line["total_training_flops"]) == row.total_training_flops
    assert line["autoencoder_accuracy"] == ""


def test_csv_runs_nothing_in_a_spreadsheet(make_entry: Callable[..., Entry]) -> None:
    score = TaskScore(
        task="=HYPERLINK(1)",
        metric="acc",
        value=-0.5,
        standard_error=None,
        monte_carlo_error=None,
        num_documents=1,
        num_samples=0,
        scorer="exact",
        protocol_hash="0" * 16,
    )
    board = Leaderboard([make_entry(label="=1+1\x1b[0m", study="@SUM(1)", settings=(("a", "+1"),), tasks=(score,))])
    head, line = csv.reader(io.StringIO(board.to_csv()))
    assert {"'=1+1�[0m", "'@SUM(1)", "'+1", "-0.5"} <= set(line)
    assert not any(cell[:1] in "=+@" for cell in (*head, *line) if cell)
    (kept,) = csv.DictReader(io.StringIO(board.to_csv(is_for_programs=True)))
    assert kept["label"] == "=1+1\x1b[0m"
    head, *_ = csv.reader(io.StringIO(records_csv(board, View())))
    assert not any(name.startswith("=") for name in head)


def test_a_finished_trial_becomes_a_row(make_outcome: Callable[..., TrialOutcome]) -> None:
    study = Study(name="s", seed=7)
    row = entry_from(make_outcome(study, 3, "K=4", {"model.chunk_size": 4}), study)
    assert (row.trial, row.label, row.kind, row.chunk_size, row.head, row.seed) == (3, "K=4", "calm", 4, "energy", 7)
    assert row.total_training_flops == 2e12 + 9e12
    assert row.total_wall_time_s == 31.0 + 90.0
    assert row.autoencoder_accuracy == 0.9995
    assert row.model_folder.endswith(f"/language_model/{row.model_identity}/model")


def test_a_row_has_the_speed_that_its_texts_were_written_with(make_outcome: Callable[..., TrialOutcome]) -> None:
    study = Study(name="s")
    outcome = make_outcome(study, 0, "K=4", {})
    assert outcome.graph is not None
    assert entry_from(outcome, study).generated_tokens_per_second is None
    graph = StageGraph((*outcome.graph.stages, Stage("samples", 1, {})))

    def writes(result: dict[str, object]) -> TrialOutcome:
        return replace(outcome, graph=graph, results={**outcome.results, "samples": result})

    with pytest.raises(IncompleteOutcome, match="no result of the stage 'samples'"):
        entry_from(replace(outcome, graph=graph), study)
    # Texts of a store whose speeds nobody had measured yet.
    assert entry_from(writes({"texts": []}), study) == entry_from(outcome, study)
    way = {"batch_size": 2, "tokens": 300, "device": "cpu: x86_64"}
    speeds = [
        {"decode_mode": "sample T=0.5 (batch of 200)", "seconds": 30.0, "tokens_per_second": 10.0, **way},
        {"decode_mode": "sample T=1", "seconds": 1.0, "tokens_per_second": 300.0, **way},
    ]
    row = entry_from(writes({"speed": speeds}), study)
    assert row.generated_tokens_per_second == 300.0
    assert row.generation == "sample T=1, 2 texts at once, cpu: x86_64"
    assert Leaderboard.from_json(Leaderboard([row]).to_json()).entries == (row,)


def test_a_token_model_has_no_autoencoder_in_its_costs(make_outcome: Callable[..., TrialOutcome]) -> None:
    study = Study(name="s")
    row = entry_from(make_outcome(study, 0, "token", {"model.kind": "token"}), study)
    assert (row.family, row.head, row.autoencoder_accuracy, row.autoencoder_parameters) == ("token", None, None, 0)
    assert row.total_training_flops == row.training_flops == 9e12
    assert row.total_wall_time_s == row.wall_time_s == 90.0


def test_a_trial_without_a_number_says_which(make_outcome: Callable[..., TrialOutcome]) -> None:
    study = Study(name="s")
    outcome = make_outcome(study, 0, "K=4", {})
    del outcome.results["evaluation"]["brierlm_se"]
    with pytest.raises(IncompleteOutcome, match=r"K=4.*evaluation.*brierlm_se"):
        entry_from(outcome, study)
    failed = TrialOutcome(1, "K=2", {}, "failed", error="loss is not finite at step 3")
    with pytest.raises(IncompleteOutcome, match="not finite at step 3"):
        entry_from(failed, study)


@pytest.mark.slow
def test_unchanged_rows_leave_the_files_alone(ablation: list[Entry], tmp_path: Path) -> None:
    paths = write_leaderboard(Leaderboard(ablation), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths.values())
    before = {path: path.stat().st_mtime_ns for path in paths.values()}
    write_leaderboard(Leaderboard(ablation[::-1]), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in paths.values()} == before
    write_leaderboard(Leaderboard(ablation[:2]), tmp_path)
    assert Leaderboard.from_json(paths["json"].read_text()).entries == Leaderboard(ablation[:2]).entries
    assert paths["png"].stat().st_mtime_ns != before[paths["png"]]
