"""Task files and questions that cannot be used are refused with the file, the field or question, and the way out."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from calm_bench.config import LanguageModel
from calm_bench.lm import TokenModel
from calm_bench.registry import UnknownName
from calm_bench.tokens.bpe import BpeTokenizer
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from evals.benchmarks import run_tasks
from evals.generation_requests import read_request
from evals.harness import CalmBenchLM
from evals.harness_reader import HarnessSettings
from evals.task_files import TaskFileError
from evals.task_identity import task_identity
from evals.task_loading import MissingData, check_tasks, load_tasks
from pipelines.planning.preflight import check_study
from pipelines.study.config import Study
from tests.evals.own_tasks import ROWS, write_rows, write_task


def model(max_length: int = 1024) -> CalmBenchLM:
    torch.manual_seed(0)
    config = LanguageModel.model_validate(
        {"hidden_size": 16, "intermediate_size": 24, "num_layers": 1, "chunk_size": 1, "kind": "token"}
    )
    return CalmBenchLM(TokenModel(config, 257).eval(), ByteTokenizer(), HarnessSettings(max_length=max_length))


def changed(number: int, **fields: Any) -> list[dict[str, Any]]:
    """The questions, one of them with other fields."""
    return [{**row, **fields} if index == number - 1 else row for index, row in enumerate(ROWS)]


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer": 7}, "the answer 7 is none of its 2 choices.*number from 0 to 1"),
        ({"answer": -1}, "the answer -1 is none"),
        ({"choices": ["", " a"]}, "choice 0 of 2 is empty"),
        ({"choices": []}, "must give a list of choices|cannot be made"),
        ({"question": None}, r"the field 'question' is empty \(null\), and doc_to_text needs it"),
    ],
)
def test_questions_that_cannot_be_asked(tmp_path: Path, number: int, fields: dict[str, Any], message: str) -> None:
    path = write_task(tmp_path, rows=changed(number, **fields))
    with pytest.raises(TaskFileError, match=f"{path}: question {number}: .*({message})"):
        check_tasks([str(path)])


def test_answers_with_a_decimal_point_are_whole_after_what_is_advised(tmp_path: Path) -> None:
    rows = [{**row, "answer": float(row["answer"])} for row in ROWS]
    path = write_task(tmp_path, rows=rows)
    with pytest.raises(TaskFileError, match=r"question 1: the answer 0\.0 is no whole number: write ") as refused:
        check_tasks([str(path)])
    advised = yaml.safe_load(str(refused.value).partition(": write ")[2])
    write_task(tmp_path, rows=rows, **advised)
    check_tasks([str(path)])
    (score,) = run_tasks(model(), [str(path)])
    write_task(tmp_path)
    (whole,) = run_tasks(model(), [str(path)])
    assert (score.value, score.num_documents) == (whole.value, len(ROWS))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[0], [1], [], [0], [1], [0]], r"question 3: the answer \[\] names none of its 2 choices"),
        ([["even"]] * 6, "question 1: the answer 'even' is none of its 2 choices: .*number from 0 to 1$"),
    ],
)
def test_several_right_answers_are_lists_of_numbers(tmp_path: Path, answers: list[Any], message: str) -> None:
    path = write_task(tmp_path, rows=[{**row, "answer": answer} for row, answer in zip(ROWS, answers, strict=True)])
    with pytest.raises(TaskFileError, match=message):
        check_tasks([str(path)])
    write_task(tmp_path, rows=[{**row, "answer": [0, 1]} for row in ROWS])
    check_tasks([str(path)])


def test_a_list_of_answers_among_single_ones(tmp_path: Path) -> None:
    path = write_task(tmp_path, doc_to_target="{{[answer] if '3' in question else answer}}")
    with pytest.raises(TaskFileError, match=r"question 4: the answer \[1\] is a list, unlike that of the first"):
        check_tasks([str(path)])


WRITTEN: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_target": "{{choices[answer]}}",
    "doc_to_choice": None,
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.mark.parametrize(
    ("given", "message", "followed"),
    [
        ({"max_gen_toks": 0}, "max_gen_toks=0 lets nothing be written: give 1 or more", {"max_gen_toks": 1}),
        ({"max_gen_toks": -1}, "max_gen_toks=-1 .*or leave it out", {}),
        ({"max_gen_toks": "ten"}, "max_gen_toks='ten' lets nothing", {"max_gen_toks": 10}),
        ({"max_gen_toks": 2.5}, "max_gen_toks=2.5 is no whole number", {"max_gen_toks": 2.0}),
        ({"max_gen_toks": True}, "max_gen_toks=True is no whole number", {"max_gen_toks": 1}),
        ({"do_sample": "false"}, "do_sample='false' is neither true nor false", {"do_sample": False}),
        ({"until": [1]}, "until=.*1 is no text: put it into quotes", {"until": ["1"]}),
        ({"max_gen_tok": 5}, "has no 'max_gen_tok'; did you mean 'max_gen_toks'", {"max_gen_toks": 5}),
        ({"do_sample": True, "top_p": 0.9}, "leave it out, or set top_p=1.0", {"do_sample": True, "top_p": 1.0}),
        ({"do_sample": True, "temperature": 2.0}, "more certain, not less", {"do_sample": True, "temperature": 1.0}),
    ],
)
def test_how_answers_are_written_is_looked_at_before_any_model_is_trained(
    tmp_path: Path, given: dict[str, Any], message: str, followed: dict[str, Any]
) -> None:
    path = write_task(tmp_path, **WRITTEN, generation_kwargs=given)
    with pytest.raises(TaskFileError, match=f"{path}: generation_kwargs.*{message}|temperature.*{message}"):
        check_tasks([str(path)])
    write_task(tmp_path, **WRITTEN, generation_kwargs=followed)
    check_tasks([str(path)])


def test_an_empty_stop_string_ends_no_answer() -> None:
    assert read_request("", {"until": ["", "\n"]}).cut("one\ntwo") == "one"
    assert read_request("", {"until": ""}).cut("one\ntwo") == "one\ntwo"


def test_letters_are_answers_only_where_they_are_choices(tmp_path: Path) -> None:
    path = write_task(tmp_path, rows=[{**row, "answer": "A"} for row in ROWS])
    with pytest.raises(TaskFileError, match="question 1: the answer 'A' is none of its 2 choices"):
        check_tasks([str(path)])
    right = write_task(tmp_path, rows=[{**row, "answer": row["choices"][row["answer"]]} for row in ROWS])
    check_tasks([str(right)])


def test_only_questions_that_are_asked_are_looked_at(tmp_path: Path) -> None:
    path = write_task(tmp_path, rows=changed(5, answer=9))
    load_tasks([str(path)], {}, limit=4)
    with pytest.raises(TaskFileError, match="question 5"):
        load_tasks([str(path)], {}, limit=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_to_text": "qestion"}, "doc_to_text: the questions have no field 'qestion'; did you mean 'question'"),
        ({"doc_to_choice": "choises"}, "doc_to_choice: the questions have no field 'choises'; did you mean 'choices'"),
        ({"doc_to_target": "anwser"}, "doc_to_target: .* 'anwser'; did you mean 'answer'"),
        ({"doc_to_text": "Q: {{qestion}}"}, "doc_to_text names the field 'qestion'.*did you mean 'question'"),
        ({"test_split": "tset"}, "test_split: the data have no split 'tset'; did you mean 'test'"),
        ({"test_split": None}, "test_split is not set"),
        ({"task": None}, "has no key 'task'"),
        ({"task": 5}, "task must be a name, found 5"),
        ({"include": "nowhere.yaml"}, r"cannot read .*nowhere.yaml \(included by .*mine.yaml\)"),
        ({"dataset_kwargs": {"data_files": {"test": "nowhere.jsonl"}}}, "names nowhere.jsonl, which is neither in"),
        ({"output_type": "loglikelihood", "doc_to_target": ""}, "question 1: doc_to_target is empty"),
    ],
)
def test_fields_that_are_not_there(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_task(tmp_path, **changes)
    with pytest.raises(TaskFileError, match=message):
        check_tasks([str(path)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_to_txt": "question"}, "doc_to_txt is no setting of a task; did you mean 'doc_to_text'"),
        ({"dataset_path": None}, "dataset_path must say where the questions are: .*found None"),
        ({"dataset_path": "jsonl"}, "dataset_path: jsonl is no kind of files: write json"),
        ({"dataset_kwargs": {"data_files": {"test": "."}}}, "data_files names the folder .*as in ./.*jsonl"),
        ({"num_fewshot": -1}, "num_fewshot must be a number from 0 up, found -1"),
        ({"num_fewshot": "two"}, "num_fewshot must be a number from 0 up, found 'two'"),
        ({"num_fewshot": 50, "fewshot_split": "test"}, "ValueError: Sample larger than population.*its num_fewshot"),
        ({"repeats": 0}, "repeats must be a number from 1 up, found 0"),
        ({"metric_list": []}, "metric_list must list metrics"),
        (
            {"metric_list": [{"metric": "acc", "aggregation": "means", "higher_is_better": True}]},
            "metric_list: there is no aggregation 'means'; did you mean 'mean'",
        ),
        (
            {"metric_list": [{"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}]},
            "metric_list asks for accuracy, .*did you mean 'acc",
        ),
        ({"test_split": False}, "test_split must be a text, found False: put it in quotes"),
        ({"description": 5}, "description must be a text, found 5"),
        ({"output_type": "multiplechoice"}, "no output_type 'multiplechoice'; did you mean 'multiple_choice'"),
        ({"unsafe_code": True}, "unsafe_code runs what a model writes.*calm-bench lm-eval --confirm_run_unsafe_code"),
        (
            {"dataset_kwargs": {"data_files": {"test": "http://127.0.0.1:1/x.jsonl"}}},
            "its data at http://127.0.0.1:1/x.jsonl cannot be read .*bring the file here",
        ),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_task(tmp_path, **changes)
    with pytest.raises((TaskFileError, MissingData), match=f"(?s)mine.*{message}"):
        check_tasks([str(path)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"question": "a", "question": "b", "choices": ["x", "y"], "answer": 0}',
            "line 7: the key 'question' is given",
        ),
        ('{"question": "\\ud800", "choices": ["x", "y"], "answer": 0}', "line 7: half of a character"),
    ],
)
def test_records_that_readers_take_in_different_ways(tmp_path: Path, line: str, message: str) -> None:
    path = write_task(tmp_path)
    with (tmp_path / "mine.jsonl").open("a") as rows:
        rows.write(f"{line}\n")
    with pytest.raises(TaskFileError, match=message):
        check_tasks([str(path)])


def test_fields_between_other_signs_than_commas(tmp_path: Path) -> None:
    """As it is advised, the file is read."""
    (tmp_path / "mine.csv").write_text("question;a;b;answer\nq;x;None;0\n")
    kwargs: dict[str, Any] = {"data_files": {"test": "mine.csv"}}
    settings = {"dataset_path": "csv", "doc_to_choice": "{{[a, b]}}"}
    path = write_task(tmp_path, rows=None, dataset_kwargs=kwargs, **settings)
    with pytest.raises(TaskFileError, match=r"separate their fields by ';'") as told:
        check_tasks([str(path)])
    kwargs |= yaml.safe_load(str(told.value).partition("dataset_kwargs: ")[2].partition(" beside")[0])
    write_task(tmp_path, rows=None, dataset_kwargs=kwargs, **settings)
    with pytest.raises(TaskFileError, match=r"the field 'b' is empty") as told:
        check_tasks([str(path)])
    kwargs |= yaml.safe_load(str(told.value).partition("dataset_kwargs: ")[2].partition(" beside")[0])
    write_task(tmp_path, rows=None, dataset_kwargs=kwargs, **settings)
    check_tasks([str(path)])


def test_names_of_files_that_are_written_like_patterns(tmp_path: Path) -> None:
    name = 'we"ird [x]* %41 é.jsonl'
    path = write_task(tmp_path, rows=None, dataset_kwargs={"data_files": {"test": name}})
    write_rows(tmp_path / name, ROWS)
    check_tasks([str(path)])


def test_a_task_behind_a_link_has_its_own_folder(tmp_path: Path) -> None:
    """As in lm-eval: functions, included files and data lie beside the file, not beside the link."""
    real = write_task(tmp_path / "real", include="common.yaml")
    real.write_text(real.read_text() + "process_docs: !function helpers.tidy\n")
    (tmp_path / "real" / "common.yaml").write_text("target_delimiter: ' '\n")
    helpers = tmp_path / "real" / "helpers.py"
    helpers.write_text("def tidy(docs):\n    return docs\n")
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    check_tasks([str(link)])
    before = task_identity(str(link)).content
    helpers.write_text("def tidy(docs):\n    return docs.select(range(2))\n")
    os.utime(helpers, (1, 1))
    sys.modules.pop(str(helpers.with_suffix("")), None)
    assert task_identity(str(link)).content != before


def test_a_key_is_given_once(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    path.write_text(path.read_text() + "doc_to_text: choices\n")
    with pytest.raises(TaskFileError, match="the key 'doc_to_text' is given twice"):
        check_tasks([str(path)])


def test_data_that_cannot_be_read_are_named_and_not_looked_for_elsewhere(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    with (tmp_path / "mine.jsonl").open("a") as rows:
        rows.write('{"question": "one"\n')
    with pytest.raises(TaskFileError, match=r"its data cannot be read: .*mine.jsonl, line 7: not JSON$"):
        check_tasks([str(path)])
    write_task(tmp_path, dataset_path="parquet")
    with pytest.raises(TaskFileError, match=r"its data cannot be read: .*mine.jsonl"):
        check_tasks([str(path)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"group: ours\ntask: [ours]\n", "the group ours lists itself"),
        (b"", "mine.yaml is empty: a task needs"),
        (b"- a\n- b\n", "must hold keys and values"),
        (b"task: [a\n", "is not valid YAML.*line 2"),
        (b"task: mine\ndescription: 2024-02-30\n", r"mine.yaml is not valid YAML: day is out of range.*line 2"),
        (b"task: mine\ninclude: {a: b}\n", "mine.yaml: include must name a file, or a list of files, found"),
        (b"task: mine\nnum_fewshot: !!int x\n", r"mine.yaml is not valid YAML: invalid literal.*line 2"),
        (b"task: mine\nmetadata: " + b"[" * 2000, "mine.yaml is not valid YAML: lists or mappings in each other"),
        (b"group: ours\ntask: [1, null]\n", r"the group ours lists tasks by their names .*found \[1, None\]"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
        ("task: mine\n".encode("utf-16-le"), "UTF-16LE text.*iconv -f UTF-16LE "),
        (b"group: ours\n", "the group ours lists no tasks"),
    ],
)
def test_files_that_describe_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(TaskFileError, match=f"(?s){message}"):
        check_tasks([str(path)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (json.dumps(ROWS[0]).encode("utf-16"), "UTF-16 text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ],
)
def test_data_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = write_task(tmp_path)
    (tmp_path / "mine.jsonl").write_bytes(content)
    with pytest.raises(TaskFileError, match=f"mine.yaml: its data file .*mine.jsonl is (a )?{message}"):
        check_tasks([str(path)])


def test_utf_16_with_its_mark_is_yaml(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    path.write_bytes(path.read_text().encode("utf-16"))
    check_tasks([str(path)])


def test_data_beside_the_file_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path / "at@home", "mine.yml")
    monkeypatch.chdir(tmp_path)
    assert run_tasks(model(), ["at@home/mine.yml"])[0].num_documents == len(ROWS)
    # As lm-eval has it, relative to where one is, where there is nothing beside the file.
    (tmp_path / "at@home" / "mine.jsonl").rename(tmp_path / "mine.jsonl")
    assert run_tasks(model(), ["at@home/mine.yml"])[0].num_documents == len(ROWS)


def test_two_files_of_one_name_are_not_one_task(tmp_path: Path) -> None:
    paths = [str(write_task(tmp_path / name)) for name in ("one", "two")]
    with pytest.raises(TaskFileError, match=r"one/mine.yaml and .*two/mine.yaml both are the task 'mine'"):
        check_tasks(paths)
    named = str(write_task(tmp_path / "three", task="stdlib_choice"))
    with pytest.raises(TaskFileError, match="both are the task 'stdlib_choice'"):
        check_tasks(["stdlib_choice", named])
    with pytest.raises(TaskFileError, match="both are the task 'mine'"):
        check_study(Study.model_validate({"name": "a", "benchmarks": {"tasks": paths}}))


def test_groups_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "first.yaml", task="first")
    write_task(tmp_path, "second.yaml", task="second", rows=None)
    group = tmp_path / "group.yaml"
    group.write_text("group: ours\ntask: [first, second]\n")
    monkeypatch.chdir(tmp_path.parent)
    scores = run_tasks(model(), [str(group)])
    assert [(score.task, score.num_documents) for score in scores] == [("first", 6), ("second", 6)]
    group.write_text("group: ours\ntask: [first, secnd]\n")
    with pytest.raises(TaskFileError, match=r"group.yaml: the group ours lists 'secnd'.*did you mean"):
        check_tasks([str(group)])


def test_a_study_is_refused_before_it_starts(tmp_path: Path) -> None:
    for kind in ("token", "calm"):
        settings = {"name": "a", "model": {"kind": kind}, "benchmarks": {"scorer": "relativ_energy"}}
        with pytest.raises(UnknownName, match="relative_energy"):
            check_study(Study.model_validate(settings))
    with pytest.raises(UnknownName, match="stdlib_choice"):
        check_study(Study.model_validate({"name": "a", "benchmarks": {"tasks": ["stdlib_choise"]}}))
    searched = {"parameters": [{"name": "benchmarks.scorer", "values": ["decoder", "decodr"]}]}
    with pytest.raises(UnknownName, match="decoder"):
        check_study(Study.model_validate({"name": "a", "search": searched}))
    check_study(Study.model_validate({"name": "a", "benchmarks": {"tasks": [str(write_task(tmp_path))]}}))


def test_values_beyond_numbers_are_said(tmp_path: Path) -> None:
    rows = [{"text": "ab"}, {"text": "x" * 2000}, {"text": ""}]
    settings = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"}
    metrics = [{"metric": name} for name in ("word_perplexity", "bits_per_byte")]
    path = write_task(tmp_path, rows=rows, **settings, doc_to_choice=None, metric_list=metrics)
    said: list[str] = []
    scores = run_tasks(model(), [str(path)], remark=said.append)
    assert [score.metric for score in scores] == ["bits_per_byte"]
    assert math.isfinite(scores[0].value)
    assert said == ["mine word_perplexity: beyond the largest number (1.8e308)"]


def test_truncated_prompts_are_counted(tmp_path: Path) -> None:
    rows = [*ROWS[:3], {**ROWS[3], "question": "long " * 100}]
    path = write_task(tmp_path, rows=rows)
    said: list[str] = []
    score = run_tasks(model(max_length=64), [str(path)], remark=said.append)[0]
    assert score.num_truncated == 1
    assert said == ["mine: 1 of 4 prompts were longer than what is read and lost their beginning"]
    assert run_tasks(model(), [str(path)])[0].num_truncated == 0


def answered(answers: list[Any], choices: list[str] | None = None) -> list[dict[str, Any]]:
    """The questions with other right answers."""
    own = {} if choices is None else {"choices": choices}
    return [{**row, "answer": answer, **own} for row, answer in zip(ROWS, answers, strict=False)]


@pytest.mark.parametrize("choices", [["true", "false"], ["Yes", "no"], ["even", "odd"], ["a", "b", "c"]])
def test_truth_values_are_no_numbers(tmp_path: Path, choices: list[str]) -> None:
    path = write_task(tmp_path, rows=answered([True, False] * 3, choices))
    meant = f"choice 1 .{choices[1]!r}."
    with pytest.raises(TaskFileError, match=f"question 1: the answer true is no number, .* {meant}: write ") as refused:
        check_tasks([str(path)])
    advised = yaml.safe_load(str(refused.value).partition(": write ")[2].removesuffix(" if that is meant"))
    write_task(tmp_path, rows=answered([True, False] * 3, choices), **advised)
    check_tasks([str(path)])


@pytest.mark.parametrize("choices", [["false", "true"], ["No", "Yes"]])
def test_truth_values_that_say_what_the_choice_says(tmp_path: Path, choices: list[str]) -> None:
    path = write_task(tmp_path, rows=answered([True, False] * 3, choices))
    check_tasks([str(path)])
    (by_value,) = run_tasks(model(), [str(path)])
    write_task(tmp_path, rows=answered([1, 0] * 3, choices))
    (by_number,) = run_tasks(model(), [str(path)])
    assert by_value.value == by_number.value


def test_digits_in_quotes_are_numbers_after_what_is_advised(tmp_path: Path) -> None:
    rows = answered([str(row["answer"]) for row in ROWS])
    path = write_task(tmp_path, rows=rows)
    with pytest.raises(TaskFileError, match="question 1: the answer '0' is no whole number: write ") as refused:
        check_tasks([str(path)])
    write_task(tmp_path, rows=rows, **yaml.safe_load(str(refused.value).partition(": write ")[2]))
    check_tasks([str(path)])
    lists = answered([[str(row["answer"])] for row in ROWS])
    write_task(tmp_path, rows=lists)
    with pytest.raises(TaskFileError, match="is no whole number: write ") as refused:
        check_tasks([str(path)])
    write_task(tmp_path, rows=lists, **yaml.safe_load(str(refused.value).partition(": write ")[2]))
    check_tasks([str(path)])
    (of_lists,) = run_tasks(model(), [str(path)])
    write_task(tmp_path)
    assert of_lists.value == run_tasks(model(), [str(path)])[0].value


def test_digits_that_are_the_text_of_one_choice_and_the_number_of_another(tmp_path: Path) -> None:
    rows = answered(["1", "2"] * 3, ["1", "2", "3"])
    path = write_task(tmp_path, rows=rows, doc_to_target="{{answer}}")
    with pytest.raises(TaskFileError, match="question 1: the answer '1' is the text of choice 0, and lm-eval takes it"):
        check_tasks([str(path)])
    for advised in ("answer", "{{answer | int}}"):
        write_task(tmp_path, rows=rows, doc_to_target=advised)
        check_tasks([str(path)])
    # By the field alone a text is a text, and a number is a number.
    write_task(tmp_path, rows=answered([0, 1] * 3, ["1", "0", "3"]))
    check_tasks([str(path)])


@pytest.mark.parametrize("metric", ["f1", "mcc", "brier_score", "acc_mutual_info"])
def test_several_right_answers_under_a_metric_of_single_ones(tmp_path: Path, metric: str) -> None:
    listed = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", metric)]
    rows = answered([[0, 1], [1], [0], [1], [0, 1], [1]], ["a", "b", "c"])
    path = write_task(tmp_path, rows=rows, metric_list=listed)
    with pytest.raises(TaskFileError, match=rf"question 1: {metric} cannot be computed where answers are lists"):
        check_tasks([str(path)])
    write_task(tmp_path, rows=rows)
    check_tasks([str(path)])
    (score,) = run_tasks(model(), [str(path)])
    assert 0 <= score.value <= 1


def test_one_text_is_not_right_and_wrong(tmp_path: Path) -> None:
    path = write_task(tmp_path, rows=changed(3, choices=["odd", "odd"], answer=1))
    with pytest.raises(TaskFileError, match=r"question 3: the choices 0 and 1 are the same text \('odd'\), .*change"):
        check_tasks([str(path)])
    # Equal wrong ones are but a question with less to choose from.
    write_task(tmp_path, rows=changed(3, choices=["even", "odd", "odd"], answer=0))
    check_tasks([str(path)])
    write_task(tmp_path, rows=[{**row, "choices": ["a", "a"], "answer": [0, 1]} for row in ROWS])
    check_tasks([str(path)])


def test_one_choice_is_none(tmp_path: Path) -> None:
    path = write_task(tmp_path, rows=changed(2, choices=["even"], answer=0))
    with pytest.raises(TaskFileError, match="question 2: it has one choice, so acc counts every answer as right"):
        check_tasks([str(path)])
    exact = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    write_task(tmp_path, rows=changed(2, choices=["even"], answer=0), metric_list=exact)
    check_tasks([str(path)])


def test_questions_of_digits_are_no_numbers_of_choices(tmp_path: Path) -> None:
    path = write_task(tmp_path, rows=changed(1, question="1"), doc_to_text="{{question}}")
    with pytest.raises(TaskFileError, match=r"question 1: it consists of digits \(1\), .*write doc_to_text: question,"):
        check_tasks([str(path)])
    write_task(tmp_path, rows=changed(1, question="1"), doc_to_text="question")
    check_tasks([str(path)])


@pytest.mark.parametrize("answer", [2, -1, "even", True, [0]])
def test_written_answers_are_chosen_by_number(tmp_path: Path, answer: object) -> None:
    written = WRITTEN | {"doc_to_target": "answer", "doc_to_choice": "choices"}
    path = write_task(tmp_path, **written)
    check_tasks([str(path)])
    write_task(tmp_path, rows=[{**row, "answer": answer} for row in ROWS], **written)
    with pytest.raises(TaskFileError, match="question 1: the answer "):
        check_tasks([str(path)])


def test_numbers_are_no_text_to_score(tmp_path: Path) -> None:
    path = write_task(tmp_path, output_type="loglikelihood", doc_to_choice=None)
    with pytest.raises(
        TaskFileError, match="question 1: doc_to_target gives 0, which is no text to score: write "
    ) as told:
        check_tasks([str(path)])
    advised = yaml.safe_load(str(told.value).partition(": write ")[2])
    write_task(tmp_path, output_type="loglikelihood", doc_to_choice=None, **advised)
    check_tasks([str(path)])
    assert run_tasks(model(), [str(path)])


THREE = [{**row, "choices": ["a", "b", "c"], "answer": number % 3} for number, row in enumerate(ROWS)]
UNEQUAL = [*ROWS[:5], {**ROWS[5], "choices": ["a", "b", "c"]}]


@pytest.mark.parametrize(
    ("rows", "metric", "message"),
    [
        (THREE, {"metric": "f1", "aggregation": "f1"}, "ValueError: Target is multiclass"),
        (UNEQUAL, {"metric": "brier_score", "aggregation": "brier_score"}, "ValueError: .*inhomogeneous"),
        (ROWS, {"metric": "likelihood", "aggregation": "mean"}, "TypeError: unsupported operand"),
        (
            ROWS,
            {"metric": "perplexity", "aggregation": "perplexity"},
            "asks for perplexity, of which .*gives no number",
        ),
    ],
)
def test_metrics_that_the_answers_do_not_allow_are_seen_before_any_model_is_trained(
    tmp_path: Path, rows: list[dict[str, Any]], metric: dict[str, Any], message: str
) -> None:
    path = write_task(tmp_path, rows=rows, metric_list=[{**metric, "higher_is_better": True}])
    with pytest.raises(TaskFileError, match=f"mine.*{message}"):
        check_tasks([str(path)])


def test_a_function_that_fails_is_seen_before_any_model_is_trained(tmp_path: Path) -> None:
    judging = tmp_path / "judging.py"
    judging.write_text("def judge(question, answers):\n    return {'acc': question['anwser'] == 1}\n")
    os.utime(judging, ns=(1, 1))
    path = write_task(tmp_path)
    path.write_text(path.read_text() + "process_results: !function judging.judge\n")
    with pytest.raises(TaskFileError, match=r"mine cannot be scored, .*KeyError: 'anwser'.*its process_results"):
        check_tasks([str(path)])
    judging.write_text("def judge(question, answers):\n    return {'acc': question['answer'] == 1}\n")
    os.utime(judging, ns=(2, 2))  # Python's bytecode knows a file by its size and the second of its change
    check_tasks([str(path)])


def test_answers_longer_than_what_is_read_are_refused_before_any_model_is_trained(tmp_path: Path) -> None:
    path = write_task(tmp_path, rows=changed(2, choices=["even", "odd " * 30]))
    settings = {"name": "a", "benchmarks": {"tasks": [str(path)], "max_length": 100}}
    with pytest.raises(TaskFileError, match=r"question 2: an answer of 121 tokens .*benchmarks\.max_length") as told:
        check_study(Study.model_validate(settings))
    assert "where 96 are read" in str(told.value), "a chunk of four stands before it"
    check_study(Study.model_validate(settings | {"benchmarks": {"tasks": [str(path)], "max_length": 128}}))
    check_study(Study.model_validate(settings | {"tokens": {"tokenizer": "bpe"}}))
    few, many = tmp_path / "few", tmp_path / "many"
    BpeTokenizer.train(["xyz\n"] * 20, 260).save(few)
    BpeTokenizer.train(["odd odd odd even\n"] * 20, 280).save(many)
    with pytest.raises(TaskFileError, match=r"question 2: an answer of 1\d\d tokens .*benchmarks\.max_length"):
        check_study(Study.model_validate(settings | {"tokens": {"tokenizer": str(few)}}))
    check_study(Study.model_validate(settings | {"tokens": {"tokenizer": str(many)}}))
    one = {"search": {"parameters": [{"name": "model", "choices": {"token": {"model.kind": "token"}}}]}}
    almost = settings | one | {"benchmarks": {"tasks": [str(path)], "max_length": 122}}
    check_study(Study.model_validate(almost))
    searched = {"search": {"parameters": [{"name": "model.chunk_size", "values": [1, 50, "two"]}]}}
    with pytest.raises(TaskFileError, match="where 50 are read"):
        check_study(Study.model_validate(settings | searched))
