"""What a study makes of the models kept along its trainings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.report.trajectory_files import write_trajectories
from pipelines.results.trajectories import Point, Trajectory, correlations, summary


def trajectory(label: str, scores: list[float], kind: str = "exact", protocol: str = "p") -> Trajectory:
    points = tuple(
        Point(1e9 * (n + 1), 5.0 - 0.3 * n - 0.01 * n**2, 0.02, score, 0.4) for n, score in enumerate(scores)
    )
    return Trajectory(0, label, kind, (protocol, "text"), points)


def test_correlations_of_each_training_and_of_all() -> None:
    found = correlations([trajectory("token", [1, 2, 4, 5, 7]), trajectory("K=4", [0, 1, 2, 1.5, 3, 4], "bound")])
    assert list(found) == ["token", "K=4", "all"]
    assert found["token"]["spearman"] == pytest.approx(-1.0)
    # A score of 0 is a clipped one and says nothing.
    assert found["K=4"]["num_pairs"] == 5
    assert found["all"]["num_pairs"] == 10
    assert found["all"]["pearson"] > found["token"]["pearson"]


def test_a_model_that_trials_share_is_one() -> None:
    """A search may ask for the same settings again; its points say nothing twice."""
    one, other = trajectory("a", [1, 2, 4, 5, 7]), trajectory("b", [0, 1, 2, 1.5, 3, 4])
    shared = [replace(one, trial=number, label=f"a{number}", model_identity="5f") for number in range(5)]
    assert correlations([*shared, other])["all"]["num_pairs"] == 10


def test_other_protocols_are_not_pooled() -> None:
    found = correlations([trajectory("a", [1, 2, 3, 4]), trajectory("b", [1, 2, 3, 4], protocol="q")])
    assert list(found) == ["a", "b"]


def test_too_few_models_are_told_not_guessed() -> None:
    lines = summary([trajectory("token", [0, 0, 1, 2]), trajectory("K=4", [1, 2, 3, 4, 5], "bound")])
    assert "4 pairs" in lines[0]
    assert "K=4 (bound): Pearson" in lines[1]
    assert lines[1].endswith("5 models")


def test_files(tmp_path: Path) -> None:
    hostile = "$x^$ <b>[/red]\n\x1b[2J"
    paths = write_trajectories([trajectory("token", [1, 2, 4, 5]), trajectory(hostile, [1, 2, 2, 4])], tmp_path)
    assert [path.name for path in paths] == ["trajectory.json", "trajectory.png"]
    written = json.loads(paths[0].read_text())
    assert written["correlations"]["token"]["num_pairs"] == 4
    assert len(written["trajectories"][1]["points"]) == 4
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert write_trajectories([], tmp_path / "none") == []
