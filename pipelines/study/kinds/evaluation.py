"""The stage ``evaluation``: BrierLM of a trained model under the study's protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.memory import Memory, evaluation_memory
from pipelines.common.numbers import clipped_with_error
from pipelines.study.cost import SMALL_FILES_BYTES, STAGE_S, CostContext, StageCost
from pipelines.study.kinds.enough_text import text_left_elsewhere
from pipelines.study.kinds.trained import load_trained
from pipelines.study.row import FinishedStage, RowPart
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_folder import METRICS_FILE, RESULT_FILE, read_result
from pipelines.study.stage_kind import StageKind

if TYPE_CHECKING:
    from evals.protocol import Protocol

MIN_WINDOWS = 3
""":data:`evals.clusters.MIN_CLUSTERS`, without the import of what scores."""
ROW_FIELDS = (
    "brier",
    "brier_se",
    "brierlm",
    "brierlm_se",
    "num_positions",
    "num_documents",
    "num_samples",
    "protocol_hash",
)
"""Numbers of a result that stand in the row under the same names."""


def run_evaluation(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Score the model on the split of the protocol; the sums behind the score are kept for comparisons in pairs.

    Raises:
        Interrupted: ``context.stop()`` turned true; the next attempt begins anew.
    """
    from calm_bench.tokens import TokenStream
    from evals.evaluate import ModelSampler, evaluate_brierlm
    from evals.sums import FILE, save_sums

    protocol = protocol_of(stage, inputs)
    model = load_trained(stage, inputs["language_model"] / "model", context.device)
    stream = TokenStream.open(inputs["tokens"], protocol.split)
    start = time.perf_counter()
    # It begins anew after an interruption, so lines of an earlier attempt would be told twice.
    with (folder / METRICS_FILE).open("w") as metrics:

        def progress(done: int, total: int) -> None:
            record: dict[str, Any] = {"step": done, "total_steps": total, "split": protocol.split, "metrics": {}}
            record["time"] = round(time.perf_counter() - start, 3)
            metrics.write(json.dumps(record) + "\n")
            metrics.flush()
            if context.stop():
                raise Interrupted(f"stopped after window {done} of {total}")

        result = evaluate_brierlm(ModelSampler(model), stream, protocol, progress)
    save_sums(result.scored, folder / FILE)
    return result.to_dict()


def text_is_too_short(stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Whether the tokens hold too few windows of the protocol, known as soon as there are tokens."""
    protocol, tokens = stage.config["protocol"], results.get("tokens", {}).get("tokens")
    if not isinstance(tokens, Mapping) or protocol["split"] not in tokens:
        return None
    length, split, limit = (protocol[name] for name in ("context_length", "split", "max_windows"))
    if limit is not None and limit < MIN_WINDOWS:
        return f"evaluation.max_windows is {limit}, and a score with an error needs {MIN_WINDOWS} windows: raise it"
    if tokens[split] // length >= MIN_WINDOWS:
        return None
    return (
        f"the {split} split has {tokens[split]:,} tokens, and scoring needs {MIN_WINDOWS} windows of {length:,} tokens "
        f"or more: lower evaluation.context_length or raise corpus.{split}_fraction"
    )


def protocol_of(stage: Stage, inputs: Mapping[str, Path]) -> Protocol:
    """The protocol that a stage is to score under, on the text that it reads."""
    from evals.protocol import Protocol

    digests = {
        "corpus_digest": read_result(inputs["corpus"])["digest"],
        "tokenizer_digest": read_result(inputs["tokens"])["tokenizer_digest"],
    }
    return Protocol.model_validate({**stage.config["protocol"], **digests})


def scoring_memory(context: CostContext) -> Memory:
    """Bytes of a worker that scores the model of an experiment."""
    experiment = context.experiment
    autoencoder = experiment.autoencoder if experiment.model.needs_autoencoder else None
    return evaluation_memory(experiment.model, autoencoder, context.vocab_size, experiment.evaluation, context.device)


def evaluation_cost(stage: Stage, context: CostContext) -> StageCost:
    """All windows of the split, up to the protocol's limit."""
    workload, windows = context.language_model, context.scored_windows
    seconds = STAGE_S + windows * context.speed_of(workload).window
    disk = SMALL_FILES_BYTES + 60.0 * windows
    return StageCost(seconds, scoring_memory(context), disk, measured=context.is_measured(workload))


def evaluation_summary(result: Mapping[str, Any]) -> str:
    """BrierLM with its error, in words."""
    return f"BrierLM {clipped_with_error(result['brierlm'], result['brierlm_se'])}" if "brierlm" in result else ""


def evaluation_row(finished: FinishedStage) -> RowPart:
    """BrierLM and Brier-n with their errors, and what they were measured with."""
    from pipelines.study.kinds.replicates import stored_replicates

    result = finished.result
    return RowPart(
        {name: result[name] for name in ROW_FIELDS}
        | {
            "copied_documents": _copied_documents(finished),
            "replicates": stored_replicates(finished.folder, result["protocol_hash"]),
            # Results from before there were several had one.
            "error_unit": result.get("error_unit", "document"),
            "estimator": result.get("estimator", "all-pairs"),
        }
    )


def _copied_documents(finished: FinishedStage) -> int:
    # Corpora from before copies were counted say nothing of them.
    corpus: Mapping[str, Any] = finished.trial.get("corpus", {})
    split = finished.stage.config["protocol"]["split"]
    return int(corpus["repeated"].get(split, 0)) if "repeated" in corpus else 0


def import_scoring() -> None:
    """Import what an evaluation needs."""
    import calm_bench.lm  # noqa: F401
    import evals.evaluate  # noqa: F401


EVALUATION = StageKind(
    "evaluation",
    run_evaluation,
    heading="Evaluations",
    revision=2,
    get_ready=import_scoring,
    left_elsewhere=text_left_elsewhere,
    cost=evaluation_cost,
    summary=evaluation_summary,
    row_part=evaluation_row,
    search_metrics={"brierlm": lambda result: float(result["brierlm"])},
    refusal=text_is_too_short,
    artifacts=(RESULT_FILE,),
)
