"""Questions are those of the files and functions as they stand, whatever was kept of an earlier load."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import datasets
import pytest

from evals.data_caches import transformed_anew
from evals.task_loading import check_tasks, load_tasks
from tests.evals.own_tasks import ROWS, write_rows, write_task

HELPERS = """
import deeper

def one(doc):
    return {"question": doc["question"].strip() + deeper.MARK}

def tidy(docs):
    return docs.map(one)
"""


def asked(task: Path) -> str:
    """What a process that begins asks first, and the answers."""
    for name in ("deeper", str(task.parent / "helpers")):
        sys.modules.pop(name, None)
    with transformed_anew():
        (loaded,) = load_tasks([str(task)], {})[0]["tasks"].values()
        documents = list(loaded.eval_docs)
    return f"{[document['answer'] for document in documents]} {documents[0]['question']}"


def test_other_answers_at_the_same_time_and_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "caches"))
    monkeypatch.syspath_prepend(tmp_path)
    task = write_task(tmp_path)
    rows = tmp_path / "mine.jsonl"
    os.utime(rows, (1, 1))
    assert asked(task).startswith("[0, 1, 0, 1, 0, 1]")
    write_rows(rows, [{**row, "answer": 1 - row["answer"]} for row in ROWS])
    os.utime(rows, (1, 1))
    assert asked(task).startswith("[1, 0, 1, 0, 1, 0]")
    task.write_text(task.read_text() + "process_docs: !function helpers.tidy\n")
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "deeper.py").write_text("MARK = '?'\n")
    assert asked(task).endswith("number 0 is?")
    (tmp_path / "deeper.py").write_text("MARK = '!'\n")
    assert asked(task).endswith("number 0 is!")
    (tmp_path / "helpers.py").write_text(HELPERS.replace("strip", "upper"))
    assert asked(task).endswith("NUMBER 0 IS!")
    sys.modules.pop("deeper")


def test_a_look_at_tasks_shows_no_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "caches"))
    check_tasks([str(write_task(tmp_path))])
    assert capsys.readouterr().err == ""


def test_the_callers_setting_is_left() -> None:
    for before in (datasets.disable_caching, datasets.enable_caching):
        before()
        was = datasets.is_caching_enabled()
        with transformed_anew():
            assert not datasets.is_caching_enabled()
        assert datasets.is_caching_enabled() == was
