"""The stage ``benchmarks``: a trained model on tasks of lm-eval."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from calm_bench.config import Benchmarks
from calm_bench.families.base import family_of
from calm_bench.overrides import ConfigurationError
from evals.task_identity import task_identity
from evals.task_score import TaskScore
from pipelines.common.numbers import printable
from pipelines.study.changed_source import refuse_changed
from pipelines.study.config import Execution
from pipelines.study.kinds.enough_text import text_left_elsewhere
from pipelines.study.kinds.language_model import language_model_experiment
from pipelines.study.kinds.trained import load_trained
from pipelines.study.row import FinishedStage, RowPart
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_folder import RESULT_FILE
from pipelines.study.stage_kind import StageKind


def run_benchmarks(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Run the tasks one after the other; an interruption between two begins them anew."""
    from calm_bench.tokens import load_tokenizer
    from evals.benchmarks import run_tasks
    from evals.harness import CalmBenchLM
    from evals.harness_reader import HarnessSettings

    settings = Benchmarks.model_validate(stage.config["benchmarks"])
    model = load_trained(stage, inputs["language_model"] / "model", context.device)
    # Where the likelihood is exact, the scorer that the study sets for its CALM models is none of the model's business.
    is_exact = model.likelihood == "exact"
    reading = HarnessSettings(
        scorer=None if is_exact else settings.scorer,
        num_samples=settings.num_samples,
        max_length=settings.max_length or HarnessSettings.max_length,
        seed=settings.seed,
    )
    lm = CalmBenchLM(model, load_tokenizer(inputs["tokens"] / "tokenizer"), reading)
    corpus = stage.inputs["corpus"].settings["corpus"]
    scores, remarks = [], list[str]()
    metadata = {"corpus": corpus, "corpus_folder": str(inputs["corpus"])}
    # Paths of task files are settings: the identity holds their content.
    for task in stage.settings.get("tasks", settings.tasks):
        if context.stop():
            raise Interrupted(f"stopped before the task {task}")
        scores += run_tasks(lm, [task], settings.limit, metadata, remarks.append, stage.settings.get("commits"))
    # They may have been written to while they were asked.
    refuse_changed(benchmarks_changed(stage))
    return {"tasks": [score.model_dump(mode="json") for score in scores], **({"remarks": remarks} if remarks else {})}


def benchmarks_changed(stage: Stage) -> str | None:
    """The tasks that are no longer those of which the study spoke: their files, data or functions; or a scorer."""
    from evals.scorers import SCORERS

    described = stage.config.get("tasks", ())
    for task, content in zip(stage.settings.get("tasks", ()), described, strict=False):
        if task_identity(task, stage.settings.get("commits")).content != content:
            return f"the task {task} (its file, what it includes, its data or its functions)"
    scorer = stage.config["benchmarks"]["scorer"]
    if "scorer_code" in stage.config and SCORERS.code_digest(scorer) != stage.config["scorer_code"]:
        return f"the code of the scorer {scorer}"
    return None


def benchmarks_refusal(stage: Stage, folders: Mapping[str, Path]) -> str | None:
    """Whether an answer is longer than the model can read, in tokens that were trained for the study; other tokenizers
    are known before anything runs."""
    tokens = stage.inputs["tokens"]
    folder = folders.get("tokens")
    if tokens.config["tokenizer"] != "bpe" or folder is None or not (folder / "tokenizer").is_dir():
        return None
    settings = Benchmarks.model_validate(stage.config["benchmarks"])
    model = language_model_experiment(stage.inputs["language_model"]).model
    asked = tuple(stage.settings.get("tasks", settings.tasks))
    commits = tuple(stage.settings.get("commits", {}).items())
    size = model.family.fixed_chunk_size or model.chunk_size
    return _too_long(folder / "tokenizer", asked, commits, settings.limit, settings.max_length, size)


@lru_cache(maxsize=64)
def _too_long(
    tokenizer: Path,
    tasks: tuple[str, ...],
    commits: tuple[tuple[str, str], ...],
    limit: int | None,
    max_length: int | None,
    chunk_size: int,
) -> str | None:
    from calm_bench.tokens import load_tokenizer
    from evals.answer_length import AnswerLimit
    from evals.harness_reader import HarnessSettings
    from evals.task_loading import load_tasks
    from evals.tasks import shipped_tasks

    foreign = [task for task in tasks if task not in shipped_tasks()]
    if not foreign:
        return None
    longest = AnswerLimit(max_length or HarnessSettings.max_length, [chunk_size], [load_tokenizer(tokenizer)])
    try:
        load_tasks(foreign, {}, limit, longest, dict(commits))
    except ConfigurationError as error:
        return str(error)
    return None


def benchmarks_impossible(stage: Stage, execution: Execution) -> str | None:
    """Why the model cannot be asked: its family has no way to answer, or not by the scorer that is named."""
    from evals.scorer_choice import scorer_for

    model = language_model_experiment(stage.inputs["language_model"]).model
    likelihood = family_of(model).likelihood_of(model)
    name = None if likelihood == "exact" else stage.config["benchmarks"]["scorer"]
    try:
        scorer_for(model.kind, likelihood, model.needs_autoencoder, name)
    except ConfigurationError as error:
        return str(error)
    return None


def benchmarks_summary(result: Mapping[str, Any]) -> str:
    """The score of every task, and what is to be known beside them (prompts cut, copies among the questions)."""
    scores = ", ".join(
        f"{printable(score['task'])} {score['metric']} {score['value']:.3g}" for score in result.get("tasks", ())
    )
    return "; ".join([scores, *map(printable, result.get("remarks", ()))])


def benchmarks_row(finished: FinishedStage) -> RowPart:
    """The scores of the tasks."""
    return RowPart({"tasks": tuple(TaskScore.model_validate(task) for task in finished.result.get("tasks", ()))})


# How many documents a task has and how long these are is known to nobody before: it has no cost that could be told.
BENCHMARKS = StageKind(
    "benchmarks",
    run_benchmarks,
    heading="Tasks",
    # 2: examples before a question are those of lm-eval's command, and long prompts keep as much as fits.
    revision=2,
    summary=benchmarks_summary,
    changed=benchmarks_changed,
    impossible=benchmarks_impossible,
    refusal_by_files=benchmarks_refusal,
    row_part=benchmarks_row,
    left_elsewhere=text_left_elsewhere,
    artifacts=(RESULT_FILE,),
)
