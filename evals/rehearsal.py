"""A task scored with made-up answers before any model is trained.

Metrics that its answers do not allow (``f1`` of three choices), a ``process_results`` that fails, a metric that lm-eval
does not compute for the task: lm-eval sees them when all questions have been asked, or not at all.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM
from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.api.task import ConfigurableTask

from calm_bench.registry import did_you_mean
from evals.data_caches import transformed_anew
from evals.few_shots import choose_examples
from evals.questions import QUESTIONS
from evals.task_files import TaskFileError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

REHEARSED = 32
"""Questions of a task that are answered; the first ones."""
UNSAFE = (
    "{}: unsafe_code runs what a model writes, which is done here for nobody: calm-bench lm-eval "
    "--confirm_run_unsafe_code does it"
)
MADE_UP = " a"
"""Answer to whatever asks for a text."""


class MadeUpAnswers(LM):  # type: ignore[misc]
    """Answers at once, whatever is asked: choices get different likelihoods, texts are one letter."""

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(-1.0 - number % 7, number % 2 == 0) for number, _ in enumerate(requests)]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        return [-1.0 for _ in requests]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        return [MADE_UP for _ in requests]


def rehearse(tasks: Mapping[str, Any], limit: int | None = None) -> None:
    """Score the first questions of each of ``tasks`` as :func:`evals.benchmarks.run_tasks` will; others than those of
    :data:`evals.questions.QUESTIONS` are left alone.

    Args:
        tasks: by name, as lm-eval loads them. They are not to be scored again.
        limit: questions that will be asked.

    Raises:
        TaskFileError: it cannot be done, or gives no number for a metric; names task and reason.
    """
    for name, task in tasks.items():
        if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE not in QUESTIONS:
            continue
        if getattr(task, "UNSAFE_CODE", False) or task.get_config("unsafe_code"):
            raise TaskFileError(UNSAFE.format(name))
        choose_examples(task)
        try:
            values = _scored(name, task, min(limit or REHEARSED, REHEARSED))
        except Exception as error:  # metrics and functions of one's own raise anything
            raise TaskFileError(
                f"{name} cannot be scored, as made-up answers to its first questions show ({type(error).__name__}: "
                f"{' '.join(str(error).split())}): look at its metric_list "
                f"({', '.join(task.aggregation()) or 'none'}), its process_results and its num_fewshot"
            ) from error
        if not callable(task.get_config("process_results")):
            _check_metrics(name, task, values)


def _scored(name: str, task: ConfigurableTask, limit: int) -> Mapping[str, Any]:
    from lm_eval import evaluate

    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        # lm-eval shows a bar of the requests that it makes.
        with warnings.catch_warnings(), transformed_anew(), redirect_stderr(io.StringIO()):
            # A score of so few made-up answers is none to be warned of.
            warnings.simplefilter("ignore")
            loaded = {"tasks": {name: task}, "groups": {}, "group_map": {}}
            found = evaluate(MadeUpAnswers(), loaded, limit=limit, bootstrap_iters=0)
    finally:
        logger.setLevel(before)
    values: Mapping[str, Any] = found["results"][name]
    return values


def _check_metrics(name: str, task: ConfigurableTask, values: Mapping[str, Any]) -> None:
    given = {key.partition(",")[0] for key, value in values.items() if "," in key and isinstance(value, int | float)}
    given = {metric for metric in given if not metric.endswith("_stderr")}
    if given - set(task.aggregation()):
        return  # A metric of one's own may give several under names of their own.
    for metric in task.aggregation():
        if metric not in given:
            known = sorted(given) or sorted(set(METRIC_REGISTRY) - {metric})
            near = did_you_mean(metric, known) if given or metric not in METRIC_REGISTRY else ""
            raise TaskFileError(
                f"{name}: metric_list asks for {metric}, of which output_type: {task.OUTPUT_TYPE} gives no number{near}"
            )
