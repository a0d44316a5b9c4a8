"""A data set of the hub is known by its commit: scores of earlier questions are not taken for those of later ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import constants

from calm_bench.config import Experiment
from evals.hub_data import HubData, kept_commit
from evals.task_identity import task_identity
from pipelines.study.graph import stages_for
from tests.calm_bench.corpora.hub_server import REVISION, serving
from tests.evals.own_tasks import ROWS, write_task

FIRST, SECOND, THIRD = REVISION, "2" * 40, "3" * 40
STEPS = """
import json, sys
from evals.task_identity import task_identity
from evals.task_loading import check_tasks, load_tasks
task = sys.argv[1]
for line in sys.stdin:
    asked = json.loads(line)
    try:
        if asked["what"] == "check":
            check_tasks([task])
            found = None
        elif asked["what"] == "identity":
            told = task_identity(task)
            found = [told.content, list(told.unknown), dict(told.commits)]
        else:
            (loaded,) = load_tasks([task], {}, commits=asked["commits"])[0]["tasks"].values()
            found = [row["answer"] for row in loaded.dataset["test"]]
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    print(json.dumps(found), flush=True)
"""


class Asked:
    """A process that asks, for which ``address`` is the hub; none is offline."""

    def __init__(self, task: Path, address: str | None, home: Path) -> None:
        variables = {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        variables |= {"HF_HUB_OFFLINE": "1"} if address is None else {"HF_ENDPOINT": address}
        hidden = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_DATASETS_CACHE", "HF_HUB_CACHE")
        environment = {name: value for name, value in os.environ.items() if name not in hidden} | variables
        self._process = subprocess.Popen(
            [sys.executable, "-c", STEPS, str(task)],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, what: str, **details: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, **details}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(self._process.communicate()[1])
        return json.loads(answer)

    def end(self) -> None:
        self._process.communicate()


def write_set(folder: Path, flip: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**row, "answer": abs(int(flip) - row["answer"])} for row in ROWS]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("has_card", [True, pytest.param(False, marks=pytest.mark.long)], ids=["card", "no card"])
@pytest.mark.extended
def test_a_set_that_changes_on_the_hub(tmp_path: Path, has_card: bool) -> None:
    folder = tmp_path / "hub" / "some" / "quiz"
    write_set(folder, flip=False)
    if has_card:
        (folder / "README.md").write_text("# Questions\n")
    task = write_task(tmp_path, rows=None, dataset_path="some/quiz", dataset_kwargs=None)
    with serving(tmp_path / "hub") as hub:
        asked = Asked(task, hub.url, tmp_path / "home")
        _, unknown, commits = asked("identity")
        assert "may change: pin it" in unknown[0]
        assert commits == {}
        asked("check")
        first, unknown, commits = asked("identity")
        assert (unknown, commits) == ([], {"mine": FIRST})
        write_set(hub.move_on("some/quiz", SECOND), flip=True)
        assert asked("identity")[0] == first, "what is kept here is what it was"
        assert asked("load", commits={"mine": FIRST}) == [0, 1, 0, 1, 0, 1]
        asked("check")
        second, unknown, commits = asked("identity")
        assert (unknown, commits) == ([], {"mine": SECOND})
        assert second != first
        assert asked("load", commits={"mine": SECOND}) == [1, 0, 1, 0, 1, 0]
        assert asked("load", commits={"mine": FIRST}) == [0, 1, 0, 1, 0, 1]
        asked.end()
    offline = Asked(task, None, tmp_path / "home")
    assert offline("identity")[0] == second
    assert offline("load", commits={"mine": SECOND}) == [1, 0, 1, 0, 1, 0]
    assert f"at the commit {FIRST}, and what the cache here gives without a network is {SECOND}" in offline(
        "load", commits={"mine": FIRST}
    )
    offline.end()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path


def prepare(home: Path, name: str, subset: str, commit: str, age_s: float = 0.0) -> None:
    folder = home / "datasets" / name / subset / "0.0.0" / commit
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder, (1e9 - age_s, 1e9 - age_s))


def fetch_card(home: Path, name: str, commit: str, branch: str = "main") -> None:
    repository = home / "hub" / f"datasets--{name}"
    (repository / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    (repository / "snapshots" / commit / "README.md").write_text("# It\n")
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / branch).write_text(commit)


def test_what_is_kept(home: Path) -> None:
    def kept(revision: str | None = None, subset: str | None = "ARC-Easy") -> str | None:
        return kept_commit(HubData("allenai/AI2Arc", subset, revision))

    assert kept() is None
    prepare(home, "allenai___ai2_arc", "ARC-Easy", FIRST, age_s=60)
    assert kept() == kept(subset=None) == FIRST
    prepare(home, "allenai___ai2_arc", "ARC-Easy-Long", THIRD, age_s=-60)
    prepare(home, "allenai___ai2_arc", "ARC-Easy", SECOND)
    prepare(home, "allenai___ai2_arc", "ARC-Easy", "local-files")
    assert kept(subset="ARC-Challenge") is None
    fetch_card(home, "allenai--AI2Arc", FIRST)
    assert kept() == FIRST, "the main branch was at it when it was fetched last"
    fetch_card(home, "allenai--AI2Arc", "4" * 40)
    assert kept() in (SECOND, THIRD), "of that commit this subset is not prepared"
    fetch_card(home, "allenai--AI2Arc", THIRD, branch="v1.0")
    assert kept("v1.0") == THIRD
    assert kept("v2.0") is None
    assert kept("5" * 40) == "5" * 40
    assert kept_commit(HubData("/no/name", None, None)) is None


def test_a_branch_is_no_commit(home: Path) -> None:
    """It moves: only what is kept of it says what it is."""
    task = write_task(home, rows=None, dataset_path="some/quiz", dataset_kwargs={"revision": "main"})
    assert "pin it" in task_identity(str(task)).unknown[0]
    fetch_card(home, "some--quiz", FIRST)
    before = task_identity(str(task))
    assert (before.unknown, before.commits) == ((), {"mine": FIRST})
    fetch_card(home, "some--quiz", SECOND)
    assert task_identity(str(task)).content != before.content
    assert task_identity(str(task), {"mine": FIRST}).content == before.content


@pytest.mark.extended
def test_lm_evals_own_tasks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their names alone: a task, a tag, a group, and a group of one's own with one of lm-eval's in it."""
    (home / "group.yaml").write_text("group: ours\ntask: [arc_easy]\n")
    names = ["arc_easy", "ai2_arc", "mmlu_stem", str(home / "group.yaml")]

    def stage(name: str) -> Any:
        return stages_for(Experiment.model_validate({"benchmarks": {"tasks": [name]}}))["benchmarks"]

    before = {name: stage(name).identity for name in names}
    assert all("no commit of it is kept" in task_identity(name).unknown[0] for name in names)
    monkeypatch.setattr("pipelines.study.graph.THIS_RUN", "another")
    assert all(stage(name).identity != before[name] for name in names), "not kept for another run"
    for subset in ("ARC-Easy", "ARC-Challenge"):
        prepare(home, "allenai___ai2_arc", subset, FIRST, age_s=60)
    fetch_card(home, "cais--mmlu", FIRST)
    first = {name: stage(name) for name in names}
    assert [task_identity(name).unknown for name in names] == [()] * 4
    assert first["arc_easy"].settings["commits"] == {"arc_easy": FIRST}
    assert set(first["ai2_arc"].settings["commits"]) == {"arc_easy", "arc_challenge"}
    assert first["mmlu_stem"].settings["commits"]["mmlu_anatomy"] == FIRST
    monkeypatch.setattr("pipelines.study.graph.THIS_RUN", "a third")
    assert all(stage(name) == first[name] for name in names)
    prepare(home, "allenai___ai2_arc", "ARC-Easy", SECOND)
    fetch_card(home, "cais--mmlu", SECOND)
    assert all(stage(name) != first[name] for name in names)
