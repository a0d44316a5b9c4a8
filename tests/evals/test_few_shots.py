"""Examples before a question are the same by ``calm-bench eval``, in a study and by lm-eval's own command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from evals.benchmarks import run_tasks
from evals.rehearsal import MadeUpAnswers
from tests.evals.own_tasks import ROWS, write_rows, write_task

SHOTS = [{"question": f"example {number} is", "choices": ["even", "odd"], "answer": number % 2} for number in range(9)]


class Listening(MadeUpAnswers):
    """Keeps the contexts that it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[str] = []

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self.contexts += [request.args[0] for request in requests]
        return super().loglikelihood(requests, disable_tqdm)


def test_examples_are_those_of_lm_eval(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "shots.jsonl", SHOTS)
    files = {"test": str(tmp_path / "mine.jsonl"), "train": str(tmp_path / "shots.jsonl")}
    settings = {"dataset_kwargs": {"data_files": files}, "fewshot_split": "train", "num_fewshot": 3}
    task = write_task(tmp_path, rows=ROWS, description="Say what it is.\n\n", **settings)
    by_us, by_lm_eval = Listening(), Listening()
    run_tasks(by_us, [str(task)])
    simple_evaluate(by_lm_eval, tasks=[str(task)], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0)
    assert by_us.contexts == by_lm_eval.contexts
    assert all(context.count("example") == 3 for context in by_us.contexts)
    assert len({context.rpartition("number")[0] for context in by_us.contexts}) > 1, "drawn for each question"
