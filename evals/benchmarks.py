"""Tasks of lm-eval on a trained model: accuracies with both their errors, sample counts and hashes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calm_bench.fingerprint import identity
from evals.task_score import EXACT, TaskScore

if TYPE_CHECKING:
    from lm_eval.api.model import LM

_HIDDEN = ("_stderr", "num_samples", "num_positions", "num_documents")
"""Metrics that are no row of their own: errors and counts of others."""

QUESTION = "calm_bench_question"
"""Key of a sample under which stands which question it is (:func:`evals.questions.question_of`)."""


def run_tasks(
    lm: LM,
    specifications: Sequence[str],
    limit: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    remark: Callable[[str], None] = lambda text: None,
    commits: Mapping[str, str] | None = None,
) -> list[TaskScore]:
    """The metrics of every task, in order.

    Args:
        lm: :class:`evals.harness.CalmBenchLM` or any other model of lm-eval.
        specifications: as of :func:`evals.task_loading.load_tasks`.
        limit: documents of each task; the first ones.
        metadata: given to every task; ours take the ``corpus`` of the model's training and its ``corpus_folder``.
        remark: told what the scores do not show: values that are no numbers, prompts that lost their beginning.
        commits: as of :func:`evals.task_loading.load_tasks`.

    Raises:
        UnknownName, MissingData, TaskFileError: as :func:`evals.task_loading.load_tasks`.
        EvaluationError: a request that the model cannot answer.
    """
    import logging

    from lm_eval import evaluate

    from evals.data_caches import transformed_anew
    from evals.few_shots import choose_examples
    from evals.questions import question_of
    from evals.task_loading import load_tasks

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    loaded, _ = load_tasks(specifications, metadata or {}, limit, commits=commits)
    for task in loaded["tasks"].values():
        choose_examples(task)
        _bound(task.aggregation())
    # Errors are computed here: lm-eval would bootstrap some of them in processes of its own.
    with transformed_anew():
        results = evaluate(lm, loaded, limit=limit, bootstrap_iters=0, verbosity="ERROR")
    for name, task in loaded["tasks"].items():
        for sample in results["samples"][name]:
            sample[QUESTION] = question_of(task, sample)
    return [score for name in loaded["tasks"] for score in _scores(lm, name, results, remark)]


def _bound(aggregations: dict[str, Callable[[list[Any]], Any]]) -> None:
    """Let an aggregation beyond the largest number be infinite: a perplexity of 2000 nats is no reason to stop."""

    def bounded(aggregate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        def value(items: list[Any]) -> Any:
            try:
                return aggregate(items)
            except OverflowError:
                return math.inf

        return value

    for metric, aggregate in list(aggregations.items()):
        aggregations[metric] = bounded(aggregate)


def _scores(lm: LM, name: str, results: Mapping[str, Any], remark: Callable[[str], None]) -> list[TaskScore]:
    samples = results["samples"][name]
    truncated = _truncated(lm, samples)
    if truncated:
        remark(
            f"{name}: {truncated} of {len({sample['doc_id'] for sample in samples})} prompts were longer than what is "
            f"read and lost their beginning"
        )
    repeated = len(samples) - len({(sample[QUESTION], sample["filter"]) for sample in samples})
    if repeated:
        remark(f"{name}: {repeated} of {len(samples)} questions are copies of others, and are no others in its errors")
    better = results["higher_is_better"].get(name, {})
    values = results["results"][name]
    found = []
    for key, value in values.items():
        metric, _, variant = key.partition(",")
        if not variant or metric.endswith(_HIDDEN) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            # No file of numbers or tracking server could hold it.
            what = "not a number" if math.isnan(value) else "beyond the largest number (1.8e308)"
            remark(f"{name} {metric}: {what}")
            continue
        own = [sample for sample in samples if sample["filter"] == variant]
        told = values.get(f"{metric}_stderr,{variant}")
        copies = len(own) - len({sample[QUESTION] for sample in own})
        # lm-eval takes copies of a question for others.
        has_own_error = isinstance(told, str | None) or copies > 0
        count = values.get(f"num_samples,{variant}", getattr(lm, "num_samples", 0))
        # The best that is possible is a property of the documents.
        output_type = results["configs"].get(name, {}).get("output_type")
        scorer = EXACT if metric == "best_acc" else _scorer(lm, output_type)
        found.append(
            TaskScore(
                task=name,
                metric=metric if variant == "none" else f"{metric} ({variant})",
                value=float(value),
                standard_error=_document_error(metric, float(value), own) if has_own_error else told,
                monte_carlo_error=_monte_carlo_error(lm, metric, scorer, own),
                num_documents=len(own) - copies,
                num_samples=0 if scorer == EXACT else count,
                scorer=scorer,
                protocol_hash=_hash(lm, name, results, samples),
                higher_is_better=better.get(metric),
                num_truncated=truncated,
            )
        )
    return found


def _truncated(lm: LM, samples: Sequence[Mapping[str, Any]]) -> int:
    """Documents of which a prompt lost its beginning; of models that do not tell, 0."""
    shortened: set[str] = getattr(lm, "shortened", set())
    documents = {
        sample["doc_id"] for sample in samples if any(argument[0] in shortened for argument in sample["arguments"])
    }
    return len(documents)


def _scorer(lm: LM, output_type: str | None) -> str:
    """What the values of a task rest on."""
    if output_type in ("multiple_choice", "loglikelihood_rolling"):
        exact = getattr(lm, "num_samples", 0) == 0
        return EXACT if exact else "decoder" if output_type == "loglikelihood_rolling" else str(lm.scorer)
    return "greedy" if output_type == "loglikelihood" else "samples"


def _document_error(metric: str, value: float, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """The standard error over documents, where the metric is a mean or a likelihood per unit."""
    from evals.choices import mean_error, ratio_error

    items: list[Any] = [sample.get(metric) for sample in samples]
    # Copies of a question are one: they say nothing that it does not.
    documents = [sample[QUESTION] for sample in samples]
    if all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        error = ratio_error([item[0] for item in items], [item[1] for item in items], documents)
        if error is None or metric not in ("bits_per_byte", "byte_perplexity", "word_perplexity"):
            return None
        return error / math.log(2) if metric == "bits_per_byte" else value * error
    if not all(isinstance(item, int | float) for item in items) or not items:
        return None
    error, mean = mean_error(items, documents), sum(items) / len(items)
    if error is not None and metric == "perplexity":
        return value * error
    return error if math.isclose(mean, value, rel_tol=1e-9, abs_tol=1e-9) else None


def _monte_carlo_error(lm: LM, metric: str, scorer: str, samples: Sequence[Mapping[str, Any]]) -> float | None:
    import numpy as np

    from evals.choices import accuracy_error

    if scorer == EXACT or (scorer == "greedy" and getattr(lm, "num_samples", 0) == 0):
        return 0.0
    if scorer in ("greedy", "samples"):
        return None
    scores = lm.scores
    # Equal requests are answered once, by the same draws.
    counts = Counter(map(_asked, samples))
    if metric == "bits_per_byte":
        rolled = [scores.get(("", asked[0][0])) for asked, _ in counts]
        if any(score is None for score in rolled):
            return None
        size = sum(sample[metric][1] for sample in samples)
        errors = (count * score.standard_error for count, score in zip(counts.values(), rolled, strict=True))
        return float(math.sqrt(sum(error**2 for error in errors)) / size / math.log(2))
    gold = [right for _, right in counts]
    answers = [[scores.get(request) for request in asked] for asked, _ in counts]
    is_choice = all(right is not None and len(own) > 1 for right, own in zip(gold, answers, strict=True))
    if metric != "acc" or not is_choice or any(score is None for own in answers for score in own):
        return None
    return accuracy_error(
        [np.array([score.value for score in own]) for own in answers],
        [np.array([score.standard_error for score in own]) for own in answers],
        np.array(gold),
        copies=list(counts.values()),
    )


def _asked(sample: Mapping[str, Any]) -> tuple[tuple[tuple[Any, ...], ...], int | None]:
    """The requests of a sample, and the number of the right answer where it has one."""
    target = sample["target"]
    return tuple(map(tuple, sample["arguments"])), target if isinstance(target, int) else None


def _hash(lm: LM, name: str, results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str:
    from importlib.metadata import version

    documents = sorted(sample[part] for sample in samples for part in ("doc_hash", "prompt_hash", "target_hash"))
    protocol = (results["configs"].get(name, {}).get("metadata") or {}).get("protocol_hash")
    asked = {
        "task": name,
        "version": results["versions"].get(name),
        "shots": results["n-shot"].get(name),
        "documents": documents,
        "lm_eval": version("lm-eval"),
        "protocol": protocol,
    }
    bounded: set[str] = getattr(lm, "bounded", set())
    if any(argument[0] in bounded for sample in samples for argument in sample["arguments"]):
        # Of what is read whole, a longer length changes nothing.
        asked["max_length"] = getattr(lm, "max_length", None)
    return identity(asked)
