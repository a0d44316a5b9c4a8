"""Settings, functions and data of task files that are broken in the ways that files are, each told with its way out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from evals.task_files import TaskFileError
from evals.task_loading import check_tasks
from tests.evals.own_tasks import ROWS, write_task


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_kwargs": ["x"]}, r"dataset_kwargs must be a mapping \(dataset_kwargs: .*found \['x'\]"),
        ({"dataset_kwargs": {"data_files": 3}}, "dataset_kwargs.data_files must name files, by split .*found 3"),
        ({"dataset_kwargs": {"data_files": {"test": None}}}, r"data_files must name files.*found \{'test': None\}"),
        (
            {"metric_list": [{"aggregation": "mean"}]},
            r"metric_list: each metric is named \(\[\{metric: acc\}\]\), found",
        ),
        ({"filter_list": 3}, "filter_list must list filters .*found 3"),
        (
            {"filter_list": [{"name": "x", "filter": [{"function": "take_frist"}]}]},
            "there is no filter 'take_frist'; did you mean 'take_first'",
        ),
        ({"generation_kwargs": [1]}, r"generation_kwargs must be a mapping .*found \[1\]"),
        ({"generation_kwargs": {"temperature": "hot"}}, "temperature must be a number, found 'hot'"),
    ],
)
def test_settings_of_another_form_are_refused_with_theirs(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_task(tmp_path, **changes)
    with pytest.raises(TaskFileError, match=f"^{path}: .*{message}"):
        check_tasks([str(path)])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nowhere.tidy", "there is no nowhere.py in .*, and no module nowhere to import"),
        ("tidy", "write MODULE.NAME, of a file MODULE.py beside it"),
        ("../tools.tidy", "write MODULE.NAME, of a file MODULE.py beside it"),
    ],
)
def test_functions_that_are_not_there_are_named(tmp_path: Path, function: str, message: str) -> None:
    path = write_task(tmp_path)
    path.write_text(path.read_text() + f"process_docs: !function {function}\n")
    with pytest.raises(TaskFileError, match=f"^{path}: !function {function}: {message}"):
        check_tasks([str(path)])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"number 3", b"caf\xe9", r"mine\.jsonl is no UTF-8 text in line 4 \(byte 0xe9\): convert it, as with `iconv"),
        (b'"number 3 is"', b"[" * 2000 + b"]" * 2000, r"mine\.jsonl, line 4: not JSON"),
        (b'"number 3 is"', b'["a"]', "question 4: doc_to_text gives .'a'., which is no text: write doc_to_text"),
    ],
)
def test_data_that_no_reader_takes_is_named_by_its_line(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = write_task(tmp_path)
    data = tmp_path / "mine.jsonl"
    data.write_bytes(data.read_bytes().replace(old, new))
    with pytest.raises(TaskFileError, match=message):
        check_tasks([str(path)])


def test_an_answer_that_is_no_number_is_told_before_the_advice_makes_it_one(tmp_path: Path) -> None:
    rows = [{**row, "answer": float("nan") if number == 3 else float(number % 2)} for number, row in enumerate(ROWS)]
    with pytest.raises(TaskFileError, match=r"question 1: .*write (doc_to_target: .*)") as refused:
        check_tasks([str(write_task(tmp_path, rows=rows))])
    advised = yaml.safe_load(str(refused.value).partition("write ")[2])
    with pytest.raises(TaskFileError, match=r"question 4: the field 'answer' is empty \(NaN\), and doc_to_target"):
        check_tasks([str(write_task(tmp_path, rows=rows, **advised))])


def test_an_include_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "base.yaml")
    path = write_task(tmp_path, include="base.yaml")
    with pytest.raises(TaskFileError, match=r"base\.yaml \(included by .*mine\.yaml\) is no file"):
        check_tasks([str(path)])
