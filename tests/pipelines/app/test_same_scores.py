"""One task, one model, three ways to ask: a study, ``calm-bench eval`` and ``calm-bench lm-eval`` score it alike."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines.execution.local_executor import LocalExecutor
from pipelines.search.drive import run_study
from pipelines.store.store import Store
from pipelines.study.config import Study
from tests.faults.small_study import COMMAND, STUDY

pytestmark = pytest.mark.slow

LIMIT = 6
TASK = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: mine.jsonl, train: shots.jsonl}}
test_split: test
fewshot_split: train
num_fewshot: 2
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""


@pytest.mark.extended
def test_a_study_eval_and_lm_eval_score_a_task_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TASK)
    questions = [
        # Of all lengths, some longer than the model was trained on.
        {
            "question": f"{n} is " * (1 + 20 * (n % 3)),
            "choices": [f" {n + m}" * (1 + m) for m in range(4)],
            "answer": n % 4,
        }
        for n in range(LIMIT)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, questions)))
    shots = [{"question": f"{n} is", "choices": [f" {n}", " none"], "answer": 0} for n in range(20, 40)]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, shots)))
    # A model of chunks, whose scores rest on draws: those of a token model have no seed that could differ.
    search = {"parameters": [{"name": "model", "choices": {"K=2": {"model.chunk_size": 2}}}]}
    wanted = STUDY | {"search": search, "benchmarks": {"tasks": ["mine.yaml"], "num_samples": 8}}
    store = Store(tmp_path / "runs")
    for outcome in run_study(Study.model_validate(wanted), store, LocalExecutor(store)):
        assert outcome.state == "complete", outcome.error
        assert outcome.graph is not None
        in_study = scores(outcome.results["benchmarks"])
        assert len(in_study) == 2
        folder = store.folder(outcome.graph["language_model"]) / "model"
        assert by_eval(tmp_path, folder) == in_study, outcome.label
        assert by_lm_eval(tmp_path, folder) == in_study, outcome.label


def scores(result: dict[str, Any]) -> dict[str, float]:
    """Metric -> value, whatever else is told of it."""
    found = result["tasks"] if "tasks" in result else result["scores"]
    return {score["metric"]: score["value"] for score in found}


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env={**os.environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def by_eval(folder: Path, model: Path) -> dict[str, float]:
    asked = ["--tasks", "mine.yaml", "--samples", "8", "--protocols", "none", "--no-track", "--json"]
    return scores(json.loads(run(folder, "eval", str(model), *asked)))


def by_lm_eval(folder: Path, model: Path) -> dict[str, float]:
    arguments = f"pretrained={model},num_samples=8"
    run(
        folder,
        "lm-eval",
        "--model",
        "calm-bench",
        "--model_args",
        arguments,
        "--tasks",
        "mine.yaml",
        "--output_path",
        "o",
    )
    (written,) = folder.glob("o/**/results_*.json")
    content = json.loads(written.read_text())["results"]["mine"]
    written.unlink()
    return {name: content[f"{name},none"] for name in ("acc", "acc_norm")}
