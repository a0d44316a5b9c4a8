"""The stage ``benchmarks``: a trained model on tasks of lm-eval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calm_bench.config import Benchmarks
from pipelines.study.kinds.trained import load_trained
from pipelines.study.stage import Interrupted, Stage, StageKind


def run_benchmarks(
    stage: Stage, inputs: Mapping[str, Path], folder: Path, device: str, stop: Callable[[], bool]
) -> dict[str, Any]:
    """Run the tasks one after the other; an interruption between two begins them anew."""
    from calm_bench.tokens import load_tokenizer
    from evals.benchmarks import run_tasks
    from evals.harness import CalmBenchLM, HarnessSettings

    settings = Benchmarks.model_validate(stage.config["benchmarks"])
    model = load_trained(stage, inputs["language_model"] / "model", device)
    # A token model is exact: the scorer that the study sets for its chunk models is none of its business.
    is_token = stage.inputs["language_model"].config["model"]["kind"] == "token"
    reading = HarnessSettings(
        scorer=None if is_token else settings.scorer, num_samples=settings.num_samples, seed=settings.seed
    )
    lm = CalmBenchLM(model, load_tokenizer(inputs["tokens"] / "tokenizer"), reading)
    corpus = stage.inputs["corpus"].settings["corpus"]
    scores = []
    for task in settings.tasks:
        if stop():
            raise Interrupted(f"stopped before the task {task}")
        scores += run_tasks(lm, [task], settings.limit, {"corpus": corpus, "corpus_folder": str(inputs["corpus"])})
    return {"tasks": [score.model_dump(mode="json") for score in scores]}


BENCHMARKS = StageKind("benchmarks", run_benchmarks)
