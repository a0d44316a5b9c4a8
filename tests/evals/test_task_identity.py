"""Scores of other questions are never taken for a task's: its identity holds all that it is made of."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from calm_bench.config import Experiment, ExtraStage, LanguageModel
from calm_bench.corpora.source import CORPORA
from calm_bench.fingerprint import identity
from calm_bench.model_code import model_code
from calm_bench.source_digest import code_digest
from evals.scorers import SCORERS
from evals.task_files import TaskFileError
from evals.task_identity import task_identity
from evals.tasks import shipped_tasks
from pipelines.study.config import Study
from pipelines.study.graph import stages_for
from pipelines.study.identity import study_identity
from pipelines.study.stage_kind import STAGE_KINDS
from tests.evals.own_tasks import ROWS, write_rows, write_task


def stage_of(*tasks: str) -> Any:
    return stages_for(Experiment.model_validate({"benchmarks": {"tasks": list(tasks)}}))["benchmarks"]


def test_tasks_that_ship_keep_the_identity_they_always_had() -> None:
    """A store of earlier versions goes on being used: nothing but the settings enters."""
    experiment = Experiment.model_validate({"benchmarks": {"tasks": shipped_tasks(), "limit": 5}})
    stage = stages_for(experiment)["benchmarks"]
    before = {"tasks": shipped_tasks(), "limit": 5, "scorer": None, "num_samples": 64, "seed": 0}
    assert stage.config == {"benchmarks": before}
    assert stage.settings == {}
    study = Study.model_validate({"name": "a", "benchmarks": {"tasks": ["stdlib_choice"]}})
    assert study_identity(study, lambda _: {}) == identity(
        {
            "name": "a",
            "experiment": study.experiment().model_dump(mode="json") | {"corpus": {}},
            "search": study.search.model_dump(mode="json", exclude={"num_trials"}),
        }
    )


def change_labels(folder: Path) -> None:
    write_rows(folder / "mine.jsonl", [{**row, "answer": 1 - row["answer"]} for row in ROWS])


def change_file(folder: Path) -> None:
    (folder / "mine.yaml").write_text((folder / "mine.yaml").read_text() + "description: Think\n")


def change_include(folder: Path) -> None:
    (folder / "common.yaml").write_text("target_delimiter: ': '\n")


def change_function(folder: Path) -> None:
    (folder / "helpers.py").write_text((folder / "helpers.py").read_text().replace("strip", "upper"))


def change_imported(folder: Path) -> None:
    (folder / "deeper.py").write_text("MARK = '!'\n")


def rich_task(folder: Path) -> Path:
    path = write_task(folder, include="common.yaml")
    path.write_text(path.read_text() + "process_docs: !function helpers.tidy\n")
    (folder / "common.yaml").write_text("target_delimiter: ' '\n")
    helpers = "import deeper\n\ndef tidy(docs):\n"
    helpers += "    return docs.map(lambda doc: {'question': doc['question'].strip() + deeper.MARK})\n"
    (folder / "helpers.py").write_text(helpers)
    (folder / "deeper.py").write_text("MARK = '?'\n")
    return path


@pytest.mark.parametrize("name", ["statistics", "evals", "yaml"])
def test_a_function_beside_its_task_may_be_called_as_other_modules(tmp_path: Path, name: str) -> None:
    """lm-eval looks beside the task file first, whatever the module is called."""
    path = write_task(tmp_path)
    path.write_text(path.read_text() + f"process_docs: !function {name}.tidy\n")
    code = tmp_path / f"{name}.py"
    code.write_text("def tidy(data):\n    return data\n")
    before = task_identity(str(path)).content
    code.write_text("def tidy(data):\n    return data.select([0])\n")
    assert task_identity(str(path)).content != before


@pytest.mark.parametrize("change", [change_labels, change_file, change_include, change_function, change_imported])
def test_every_part_of_a_task_enters_its_identity(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = rich_task(tmp_path / "one")
    before = stage_of(str(path))
    study = Study.model_validate({"name": "a", "benchmarks": {"tasks": [str(path)]}})
    named = study_identity(study, lambda _: {})
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    copy = stage_of(str(tmp_path / "two" / "mine.yaml"))
    assert copy.identity == before.identity  # wherever it lies
    assert copy.settings["tasks"] == [str(tmp_path / "two" / "mine.yaml")]
    change(tmp_path / "one")
    assert stage_of(str(path)).identity != before.identity
    assert study_identity(study, lambda _: {}) != named


@pytest.mark.extended
def test_a_folder_of_data_counts_by_its_content(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    write_rows(tmp_path / "a" / "test.jsonl", ROWS)
    write_rows(tmp_path / "b" / "test.jsonl", ROWS)
    write_rows(tmp_path / "c" / "test.jsonl", ROWS[:-1])
    one, two, three = (task_identity(f"{path}@{tmp_path / name}").content for name in "abc")
    assert one == two != three
    assert task_identity(f"hellaswag@{tmp_path / 'a'}").content != task_identity(f"hellaswag@{tmp_path / 'c'}").content


def test_patterns_reach_into_folders_as_those_of_datasets_do(tmp_path: Path) -> None:
    from evals.task_loading import check_tasks

    kwargs = {"data_files": {"test": "data/**/*.jsonl"}}
    path = write_task(tmp_path, rows=None, dataset_kwargs=kwargs)
    rows = write_rows(tmp_path / "data" / "of" / "mine" / "all.jsonl", ROWS)
    check_tasks([str(path)])
    before = task_identity(str(path)).content
    write_rows(rows, [{**row, "answer": 1 - row["answer"]} for row in ROWS])
    assert task_identity(str(path)).content != before


def test_members_of_a_group_enter_it(tmp_path: Path) -> None:
    write_task(tmp_path)
    group = tmp_path / "group.yaml"
    group.write_text("group: ours\ntask: [mine]\n")
    before = task_identity(str(group)).content
    change_labels(tmp_path)
    assert task_identity(str(group)).content != before


def test_what_cannot_be_known_is_said_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = write_task(tmp_path, "hub.yaml", dataset_path="somebody/questions", dataset_kwargs=None)
    pinned = write_task(
        tmp_path, "pinned.yaml", dataset_path="somebody/questions", dataset_kwargs={"revision": "0" * 40}
    )
    reading = write_task(tmp_path, "reading.yaml")
    reading.write_text(reading.read_text() + "process_docs: !function reader.tidy\n")
    (tmp_path / "reader.py").write_text("def tidy(docs):\n    return docs if open('x').read() else docs\n")
    assert "may change: pin it" in task_identity(str(hub)).unknown[0]
    assert task_identity(str(pinned)).unknown == ()
    assert "reader.py:2" in task_identity(str(reading)).unknown[0]
    here = [stage_of(str(path)).identity for path in (hub, pinned, reading)]
    assert here == [stage_of(str(path)).identity for path in (hub, pinned, reading)]  # one run has one of each
    monkeypatch.setattr("pipelines.study.graph.THIS_RUN", "another")
    later = [stage_of(str(path)).identity for path in (hub, pinned, reading)]
    assert [one == other for one, other in zip(here, later, strict=True)] == [False, True, False]


def test_signs_in_paths(tmp_path: Path) -> None:
    """``@`` and ``.yml`` are parts of many paths."""
    path = write_task(tmp_path / "me@home", "mine.yml")
    write_rows(tmp_path / "a@b" / "test.jsonl", ROWS)
    assert task_identity(str(path)).name == "mine.yml"
    found = task_identity(f"{path}@{tmp_path / 'a@b'}")
    assert found.written == f"{path}@{tmp_path / 'a@b'}"
    with pytest.raises(TaskFileError, match="no task file"):
        task_identity(str(tmp_path / "nowhere.yaml"))


def test_merge_keys(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    settings = yaml.safe_load(path.read_text())
    kwargs = yaml.safe_dump({"base": {"doc_to_text": settings.pop("doc_to_text")}}).replace("base:", "base: &base")
    path.write_text(kwargs + yaml.safe_dump(settings) + "<<: *base\n")
    from evals.task_files import read_task_file

    assert read_task_file(path).settings["doc_to_text"] == "question"


def test_the_code_of_a_head_of_ones_own_enters_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_head.py").write_text("from my_parts import SIZE\n")
    (tmp_path / "my_parts.py").write_text("SIZE = 1\n")

    def identities() -> tuple[str, str]:
        head = {"kind": "custom", "target": "my_head:Head"}
        graph = stages_for(Experiment.model_validate({"model": {"head": head}}))
        return graph["language_model"].identity, graph["autoencoder"].identity

    before = identities()
    assert identities() == before
    (tmp_path / "my_parts.py").write_text("SIZE = 2\n")
    after = identities()
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
    assert "head_code" not in stages_for(Experiment())["language_model"].config


@pytest.mark.parametrize(
    "names_it",
    ["from importlib import import_module\nPARTS = import_module('my_parts')\n", "NETWORK = 'my_parts:Network'\n"],
)
def test_code_that_a_string_names_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_it: str) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_family.py").write_text(names_it)
    (tmp_path / "my_parts.py").write_text("SIZE = 1\n")
    model = LanguageModel.model_validate(
        {"kind": "custom", "custom": {"target": "my_family:FAMILY"}, "training": {"num_steps": 1}}
    )
    before = model_code(model)
    assert set(before) == {"family_code"}
    (tmp_path / "my_parts.py").write_text("SIZE = 2\n")
    assert model_code(model) != before


def test_the_code_of_an_extra_stage_enters_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    imports = "from pipelines.study.stage_kind import StageKind\n"
    code = f"{imports}MINE = StageKind('mine-for-a-test', print, reads=('tokens',))\n"
    (tmp_path / "my_stage.py").write_text(code)
    monkeypatch.setitem(STAGE_KINDS._targets, "mine-for-a-test", "my_stage:MINE")

    def stage() -> str:
        return stages_for(Experiment(extra_stages=(ExtraStage(kind="mine-for-a-test"),)))["mine-for-a-test"].identity

    before = stage()
    assert stage() == before
    (tmp_path / "my_stage.py").write_text(f"{code}SIZE = 2\n")
    monkeypatch.delitem(sys.modules, "my_stage")  # as in a process that begins
    assert stage() != before


PLUG_IN = "from my_parts import SIZE\n\ndef mine(draws, chunks):\n    return draws\n"
SOURCE = """
from my_parts import SIZE

class Source:
    fields = ()

    def dependencies(self, config):
        return {}

SOURCE = Source()
"""


def test_a_scorer_and_a_corpus_of_ones_own_are_known_by_what_they_are_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_scorer.py").write_text(PLUG_IN)
    (tmp_path / "my_corpus.py").write_text(SOURCE)
    (tmp_path / "my_parts.py").write_text("SIZE = 1\n")
    monkeypatch.setitem(SCORERS._targets, "mine-for-a-test", "my_scorer:mine")
    monkeypatch.setitem(CORPORA._targets, "mine-for-a-test", "my_corpus:SOURCE")
    wanted = {
        "corpus": {"source": "mine-for-a-test"},
        "benchmarks": {"tasks": ["stdlib_choice"], "scorer": "mine-for-a-test"},
    }

    def identities() -> list[str]:
        graph = stages_for(Experiment.model_validate(wanted))
        benchmarks = graph["benchmarks"]
        return [graph["corpus"].identity, identity(benchmarks.config)]

    before = identities()
    SCORERS.get("mine-for-a-test")
    assert identities() == before, "the same whether it has been imported or not"
    (tmp_path / "my_parts.py").write_text("SIZE = 2\n")
    for name in ("my_scorer", "my_corpus", "my_parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # as in a process that begins
    after = identities()
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True]


def test_an_installed_plug_in_is_known_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lib" / "site-packages" / "their_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("SIZE = 1\n")
    monkeypatch.syspath_prepend(str(package.parent))
    before = code_digest("their_package.scorers")
    assert before == code_digest("their_package")
    (package / "deep.py").write_text("SIZE = 22\n")
    os.utime(package / "deep.py", ns=(1, 1))
    assert code_digest("their_package") != before
    assert code_digest("no_such_package") == code_digest("no_such_other_package"), "of this process alone"
    assert (code_digest("evals.scorers.draws"), code_digest("json")) == (None, None)


def test_a_tokenizers_folder_is_known_by_its_files(tmp_path: Path) -> None:
    for name in ("one", "copy", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text("{}" if name != "other" else "{ }")

    def stage(name: str) -> str:
        return stages_for(Experiment.model_validate({"tokens": {"tokenizer": str(tmp_path / name)}}))["tokens"].identity

    assert stage("one") == stage("copy") != stage("other")


@pytest.mark.parametrize(
    "reads",
    [
        "json.loads((Path(__file__).parent / 'sizes.json').read_text())",
        "json.load(open('sizes.json'))",
        "json.loads(Path(__file__).with_name('sizes.json').read_bytes())",
    ],
)
def test_files_that_code_of_ones_own_names_are_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_head.py").write_text(f"import json\nfrom pathlib import Path\nSIZES = {reads}\n")
    without = code_digest("my_head")
    (tmp_path / "sizes.json").write_text("[1, 2]")
    before = code_digest("my_head")
    assert len({without, before}) == 2
    (tmp_path / "sizes.json").write_text("[1, 3]")
    os.utime(tmp_path / "sizes.json", ns=(1, 1))
    assert code_digest("my_head") != before


@pytest.mark.parametrize("call", ["np.load('x.npy')", "torch.load('x.pt')", "sqlite3.connect('x')", "os.listdir('.')"])
def test_whatever_reads_files_is_seen(tmp_path: Path, call: str) -> None:
    path = write_task(tmp_path, "reading.yaml")
    path.write_text(path.read_text() + "process_docs: !function reader.tidy\n")
    (tmp_path / "reader.py").write_text(f"def tidy(docs):\n    return docs if {call} else docs\n")
    assert "reader.py:2" in task_identity(str(path)).unknown[0]


def reading(folder: Path, body: str) -> Path:
    """A task with a function of one's own that does ``body``."""
    path = write_task(folder)
    path.write_text(path.read_text() + "process_docs: !function reader.tidy\n")
    imports = (
        "import platform, random, socket, sys, time; from os import environ as E; from random import shuffle as mix"
    )
    imports += "; from time import time as moment\nimport numpy as np, torch as t"
    (folder / "reader.py").write_text(f"{imports}\ndef tidy(docs):\n    {body}\n")
    return path


@pytest.mark.parametrize(
    ("body", "is_open"),
    [
        ("return docs.select(random.sample(range(len(docs)), 3))", True),
        ("return docs.select(np.random.permutation(len(docs)))", True),
        ("return docs.select(np.random.default_rng().permutation(len(docs)))", True),
        ("return docs.shuffle()", True),
        ("return docs.filter(lambda doc: time.time() > 5)", True),
        ("return docs if __import__('a' + 'b') else docs", True),
        ("return docs.select(range(int(E['COUNT'])))", True),
        ("order = list(range(len(docs))); mix(order); return docs.select(order)", True),
        ("return docs.select(t.randperm(len(docs)).tolist())", True),
        ("return docs if moment() > 5 else docs", True),
        ("return docs.filter(lambda doc: hash(doc['question']) % 2)", True),
        ("return docs if socket.gethostname() == 'a' else docs", True),
        ("return docs if platform.node() == 'a' else docs", True),
        ("return docs.select(range(len(sys.argv)))", True),
        ("read = open; return docs if read('x').read() else docs", True),
        ("hash = open = 1; return docs.select([hash, open])", False),
        ("return docs.filter(lambda doc: doc['platform'] == sys.version)", False),
        ("return docs.select(random.Random(0).sample(range(len(docs)), 3))", False),
        ("return docs.select(np.random.default_rng(0).permutation(len(docs)))", False),
        ("random.seed(3); return docs.select(random.sample(range(len(docs)), 3))", False),
        ("return docs.shuffle(seed=0)", False),
        ("return docs.map(lambda doc: doc | {'question': doc['question'].strip()})", False),
    ],
)
def test_what_is_another_every_time_is_not_kept(tmp_path: Path, body: str, is_open: bool) -> None:
    unknown = task_identity(str(reading(tmp_path, body))).unknown
    assert bool(unknown) == is_open, unknown
    assert all("reader.py:4" in reason for reason in unknown)


def test_what_python_runs_before_a_module_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "my_heads"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py", "deep/head.py", "sizes.py"):
        (package / name).write_text("")
    for name, content in (
        ("__init__.py", "from .sizes import *"),
        ("sizes.py", "N = 2"),
        ("deep/__init__.py", "A = 1"),
    ):
        before = code_digest("my_heads.deep.head")
        (package / name).write_text(content)
        assert code_digest("my_heads.deep.head") != before, name
