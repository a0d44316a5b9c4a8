"""Addresses in MLflow: right where tracking left them, and nothing else becomes a link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.links import LOCAL, links_of

RUN = "0123456789abcdef0123456789abcdef"


def written(folder: Path, **changes: Any) -> Path:
    record = {"address": "http://tracking.example:8080/ml", "experiment_id": "7", "parent_run_id": RUN, "runs": {}}
    (folder / "mlflow.json").write_text(json.dumps(record | changes))
    return folder


def test_a_run_is_found_on_its_server(tmp_path: Path) -> None:
    links = links_of(written(tmp_path, runs={"3": RUN}))
    assert links.trial(3) == f"http://tracking.example:8080/ml/#/experiments/7/runs/{RUN}"
    assert links.study == links.trial(3)
    assert links.trial(4) is None


@pytest.mark.parametrize(
    "address", ["sqlite:///runs/mlflow.db", "file:///runs", "javascript:alert(1)", "", None, "http://["]
)
def test_a_database_in_a_file_is_shown_by_the_local_page(tmp_path: Path, address: str | None) -> None:
    assert links_of(written(tmp_path, address=address)).study == f"{LOCAL}/#/experiments/7/runs/{RUN}"


def test_credentials_and_queries_go_nowhere(tmp_path: Path) -> None:
    address = "https://user:secret@tracking.example/path?token=secret"
    link = links_of(written(tmp_path, address=address)).study
    assert link == f"https://tracking.example/path/#/experiments/7/runs/{RUN}"


def test_names_that_are_not_mlflows_become_no_link(tmp_path: Path) -> None:
    links = links_of(written(tmp_path, runs={"0": '"><script>', "1": 5, "2": "../x"}, parent_run_id="a/b"))
    assert [links.study, *(links.trial(number) for number in range(3))] == [None] * 4
    assert links_of(written(tmp_path, experiment_id="7/../x")).study is None


def test_a_study_that_is_not_in_mlflow_has_none(tmp_path: Path) -> None:
    assert links_of(tmp_path).trial(0) is None
