"""The stage ``autoencoder``: from K tokens to one latent vector and back, trained before the language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from calm_bench.config import Autoencoder, Experiment, LanguageModel
from calm_bench.flops import autoencoder_parameter_count
from calm_bench.memory import Memory, autoencoder_training_memory
from calm_bench.worker_memory import divided_memory
from pipelines.common.numbers import floored_percent
from pipelines.study.config import Execution
from pipelines.study.cost import STAGE_S, UNKNOWN_COST, CostContext, StageCost
from pipelines.study.kinds.autoencoder_workload import AutoencoderWorkload
from pipelines.study.kinds.enough_text import shards_left_elsewhere, too_little_to_train_on
from pipelines.study.kinds.measured_speed import measure_autoencoder
from pipelines.study.kinds.pretrained import other_vocabulary, pretrained_folder
from pipelines.study.kinds.sharing import unshareable
from pipelines.study.kinds.training_cost import micro_batch_advice, sequences_at_once, training_disk, worker_seconds
from pipelines.study.price import TrainingPrice, price_of
from pipelines.study.row import FinishedStage, RowPart
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_flops import stage_vocab_size
from pipelines.study.stage_kind import MetricPoint, StageKind

PROBED_TOKENS = 16_384
PROBES = 20
"""As in :mod:`calm_bench.autoencoder.probe`: tokens of the probes, and how often they are reconstructed."""


def run_autoencoder(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Train the autoencoder, or take one from a folder; measure its accuracy on the test split and probe its latents.

    Raises:
        Interrupted: ``context.stop()`` turned true; a checkpoint is in ``folder``.
    """
    from calm_bench import training

    source = pretrained_folder(stage, "autoencoder")
    if source is not None:
        return training.adopt_autoencoder(
            autoencoder_experiment(stage), inputs["tokens"], source, folder, context.device
        )
    try:
        return training.train_autoencoder(
            autoencoder_experiment(stage),
            inputs["tokens"],
            folder,
            context.device,
            context.stop,
            context.training,
        )
    except training.Interrupted as error:
        raise Interrupted(str(error)) from error


def autoencoder_experiment(stage: Stage) -> Experiment:
    """The part of an experiment that an autoencoder stage knows; the rest is left at defaults that nothing reads."""
    autoencoder = Autoencoder.model_validate(stage.config["autoencoder"])
    # Not validated as a whole: the default evaluation need not fit this K.
    return Experiment.model_construct(
        seed=stage.config["seed"],
        autoencoder=autoencoder,
        model=LanguageModel.model_validate({"chunk_size": autoencoder.chunk_size}),
    )


def autoencoder_price(stage: Stage, vocab_size: int) -> TrainingPrice | None:
    """The price of its training."""
    return price_of(autoencoder_experiment(stage), vocab_size).autoencoder


def autoencoder_flops(stage: Stage, vocab_size: int) -> float:
    """Training FLOPs of all its steps."""
    price = autoencoder_price(stage, vocab_size)
    return 0.0 if price is None else price.flops.total


def autoencoder_cost(stage: Stage, context: CostContext) -> StageCost:
    """Its training, the reconstruction of the test split and the probes."""
    price, model = context.price.autoencoder, context.experiment.model
    if price is None:
        return UNKNOWN_COST
    workload = context.workloads["autoencoder"]
    speed = context.speed_of(workload)
    seconds = worker_seconds(price, workload.training, speed, context.workers) if price.steps else 0.0
    tested = context.sizes.tokens_of("test") or 0.0
    seconds += speed.reconstruction_token * (tested + PROBES * min(PROBED_TOKENS, tested))
    saved = price.parameters.total

    def memory_of(rows: int) -> Memory:
        whole = autoencoder_training_memory(
            context.experiment.autoencoder, model.chunk_size, context.vocab_size, context.device, rows
        )
        # Autoencoders stay whole on every worker.
        return divided_memory(whole, context.workers.count, "ddp", saved, 0.0, context.device)

    rows = sequences_at_once(workload.training, memory_of, context)
    kept, scratch = training_disk(price, workload.training, saved, 1, context.training.keep_checkpoints)
    return StageCost(STAGE_S + seconds, memory_of(rows), kept, scratch, rows, context.is_measured(workload))


def autoencoder_impossible(stage: Stage, execution: Execution) -> str | None:
    """Why the workers cannot share its batches; one from a folder is not trained, and may read other tokens."""
    if "pretrained" in stage.config["autoencoder"]:
        return other_vocabulary(stage, "autoencoder", {})
    return unshareable(autoencoder_experiment(stage).autoencoder.training, execution, lambda: True)


def autoencoder_refusal(stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Whether the text is too short for one of its sequences; one from a folder is not trained, and may read other
    tokens."""
    if "pretrained" in stage.config["autoencoder"]:
        return other_vocabulary(stage, "autoencoder", results)
    return too_little_to_train_on(stage, "autoencoder", results)


def autoencoder_memory_advice(stage: Stage, strategy: str | None) -> str:
    """Its size, and the micro-batch that makes it smaller."""
    vocab_size = stage_vocab_size(stage)
    parameters = None
    if vocab_size is not None:
        experiment = autoencoder_experiment(stage)
        count = autoencoder_parameter_count(experiment.autoencoder, experiment.model.chunk_size, vocab_size)
        parameters = round(count.total)
    return micro_batch_advice(stage.config["autoencoder"]["training"], "autoencoder", parameters)


def autoencoder_summary(result: Mapping[str, Any]) -> str:
    """The share of held-out tokens that it reconstructs, in words."""
    return f"{floored_percent(result['accuracy'])} of held-out tokens reconstructed" if "accuracy" in result else ""


def autoencoder_row(finished: FinishedStage) -> RowPart:
    """Its size and its accuracy, and its training in the row's totals.

    A shared autoencoder counts in full in every row that needs it.
    """
    result = finished.result
    flops = float(result["training_flops"])
    fields = {
        "autoencoder_parameters": int(result["parameters"]),
        "autoencoder_accuracy": float(result["accuracy"]),
        "autoencoder_training_flops": flops,
    }
    return RowPart(fields, training_flops=flops, wall_time_s=float(result["wall_time_s"]))


def probe_metrics(result: Mapping[str, Any]) -> Iterator[MetricPoint]:
    """Its probes: each curve a metric whose step is its level, bits or hundredths of noise; none where it has none."""
    probes = result.get("probes")
    if not probes:
        return
    yield MetricPoint("autoencoder_probe/collapsed_dimensions", float(probes["collapsed"]["value"]))
    yield MetricPoint("autoencoder_probe/posterior_std", float(probes["posterior_std"]))
    for curve, steps_per_level in (("bits", 1), ("noise", 100)):
        for point in probes[curve]:
            step = round(steps_per_level * point["level"])
            accuracy = point["accuracy"]
            yield MetricPoint(f"autoencoder_probe/accuracy_{curve}", float(accuracy["value"]), step)
            yield MetricPoint(f"autoencoder_probe/accuracy_{curve}_se", float(accuracy["standard_error"]), step)


def import_training() -> None:
    """Import what a training needs."""
    import calm_bench.training  # noqa: F401


AUTOENCODER = StageKind(
    "autoencoder",
    run_autoencoder,
    heading="Autoencoders",
    label_is_enough=True,
    # 3: the cross-entropy's gradients come from the forward pass, summed in another order; see calm_bench.blockwise.
    revision=3,
    get_ready=import_training,
    data_parallel=True,
    impossible=autoencoder_impossible,
    refusal=autoencoder_refusal,
    left_elsewhere=partial(shards_left_elsewhere, section="autoencoder"),
    scratch=("checkpoints", "stop"),
    section="autoencoder",
    flops=autoencoder_flops,
    price=autoencoder_price,
    cost=autoencoder_cost,
    workload=AutoencoderWorkload,
    measure=measure_autoencoder,
    memory_advice=autoencoder_memory_advice,
    summary=autoencoder_summary,
    row_part=autoencoder_row,
    search_metrics={"autoencoder_accuracy": lambda result: float(result["accuracy"])},
    metrics=probe_metrics,
    streams_metrics=True,
)
