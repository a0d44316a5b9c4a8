"""The stage ``language_model``: a model of any family, a CALM on the latents of its autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from calm_bench.arithmetic import training_arithmetic
from calm_bench.config import Autoencoder, Experiment, LanguageModel, Trajectory
from calm_bench.families.base import family_of
from calm_bench.family_registry import FAMILIES
from calm_bench.flops import layer_parameters, parameter_count
from calm_bench.memory import Memory, training_memory
from calm_bench.model_code import MODEL_CODE, model_code
from calm_bench.worker_memory import divided_memory
from pipelines.study.config import Execution
from pipelines.study.cost import STAGE_S, CostContext, StageCost
from pipelines.study.kinds.enough_text import shards_left_elsewhere, too_little_to_train_on
from pipelines.study.kinds.language_model_workload import LanguageModelWorkload
from pipelines.study.kinds.measured_speed import measure_language_model
from pipelines.study.kinds.pretrained import other_autoencoder, other_vocabulary, pretrained_folder
from pipelines.study.kinds.sharing import unshareable
from pipelines.study.kinds.training_cost import micro_batch_advice, sequences_at_once, training_disk, worker_seconds
from pipelines.study.price import TrainingPrice, price_of
from pipelines.study.row import FinishedStage, RowPart
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_flops import stage_vocab_size
from pipelines.study.stage_folder import PROVENANCE_FILE
from pipelines.study.stage_kind import StageKind


def run_language_model(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Train the language model.

    Raises:
        Interrupted: ``context.stop()`` turned true; a checkpoint is in ``folder``.
    """
    from calm_bench import training

    experiment = language_model_experiment(stage)
    try:
        return training.train_language_model(
            experiment,
            inputs["tokens"],
            inputs.get("autoencoder"),
            folder,
            context.device,
            context.stop,
            context.training,
            pretrained_folder(stage, "model"),
        )
    except training.Interrupted as error:
        raise Interrupted(str(error)) from error


def language_model_experiment(stage: Stage) -> Experiment:
    """The part of an experiment that a language-model stage and its autoencoder know."""
    model = stage.config["model"]
    known: dict[str, Any] = {"seed": stage.config["seed"]}
    if "snapshots" in stage.config:
        known["trajectory"] = Trajectory(snapshots=stage.config["snapshots"])
    if "autoencoder" not in stage.inputs:
        fixed = FAMILIES.get(model["kind"]).fixed_chunk_size
        sizes = {} if fixed is None else {"chunk_size": fixed}
        return Experiment.model_construct(**known, model=LanguageModel.model_validate({**model, **sizes}))
    return Experiment.model_construct(
        **known,
        autoencoder=Autoencoder.model_validate(stage.inputs["autoencoder"].config["autoencoder"]),
        model=LanguageModel.model_validate(model),
    )


def language_model_price(stage: Stage, vocab_size: int) -> TrainingPrice:
    """The price of its training, without its autoencoder's."""
    return price_of(language_model_experiment(stage), vocab_size).model


def language_model_flops(stage: Stage, vocab_size: int) -> float:
    """Training FLOPs of all its steps, without its autoencoder's."""
    return language_model_price(stage, vocab_size).flops.total


def language_model_cost(stage: Stage, context: CostContext) -> StageCost:
    """Its training, and the snapshots that a trajectory keeps."""
    experiment, price, workload = context.experiment, context.price, context.language_model
    autoencoder = experiment.autoencoder if experiment.model.needs_autoencoder else None
    frozen = 0.0 if price.autoencoder is None else price.autoencoder.parameters.total
    snapshots = 0 if experiment.trajectory is None else experiment.trajectory.snapshots
    trained = price.model.parameters.total

    def memory_of(rows: int) -> Memory:
        recomputes = context.training.activation_checkpointing
        whole = training_memory(experiment.model, autoencoder, context.vocab_size, context.device, rows, recomputes)
        count, strategy = context.workers.count, context.workers.strategy
        sizes = layer_parameters(experiment.model), experiment.model.num_layers
        return divided_memory(whole, count, strategy, trained, frozen, context.device, *sizes)

    rows = sequences_at_once(workload.training, memory_of, context)
    seconds = worker_seconds(price.model, workload.training, context.speed_of(workload), context.workers)
    kept, scratch = training_disk(
        price.model, workload.training, trained + frozen, 1 + snapshots, context.training.keep_checkpoints
    )
    return StageCost(STAGE_S + seconds, memory_of(rows), kept, scratch, rows, context.is_measured(workload))


def language_model_changed(stage: Stage) -> str | None:
    """The code of one's own that the model is made of, where it is no longer that of which the study spoke."""
    described = {name: stage.config[name] for name in MODEL_CODE if name in stage.config}
    if not described or model_code(LanguageModel.model_validate(stage.config["model"])) == described:
        return None
    named = [str(stage.config["model"].get(section, {}).get("target") or "") for section in ("head", "custom")]
    return f"the code of the model ({', '.join(filter(None, named)) or stage.config['model']['kind']})"


def language_model_impossible(stage: Stage, execution: Execution) -> str | None:
    """Why the workers cannot share its batches, or the noise of its model's head; or the model that it begins from
    reads other tokens."""
    if (reason := other_vocabulary(stage, "model", {})) is not None:
        return reason
    experiment = language_model_experiment(stage)
    model = experiment.model
    return unshareable(model.training, execution, lambda: family_of(model).draws_by_rows(model, experiment.autoencoder))


def language_model_refusal(stage: Stage, results: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Whether the text is too short for one of its sequences, or of other tokens than the model that it begins from."""
    return too_little_to_train_on(stage, "model", results) or other_vocabulary(stage, "model", results)


def language_model_memory_advice(stage: Stage, strategy: str | None) -> str:
    """Its size, the micro-batch that makes it smaller, and what dividing it among its workers would."""
    vocab_size = stage_vocab_size(stage)
    parameters = None
    if vocab_size is not None:
        experiment = language_model_experiment(stage)
        parameters = round(parameter_count(experiment.model, experiment.autoencoder, vocab_size).total)
    advice = micro_batch_advice(stage.config["model"]["training"], "model", parameters)
    if strategy == "ddp":
        advice += ", or divide the model among its workers (execution.strategy=fsdp)"
    return advice


def language_model_summary(result: Mapping[str, Any]) -> str:
    """Its final loss and the steps that it spent on a plateau, in words."""
    if "final_loss" not in result:
        return ""
    plateau = f", {result['plateau_steps']:,} steps on a plateau" if result.get("plateau_steps") else ""
    return f"final loss {result['final_loss']:.4g}{plateau}"


def language_model_row(finished: FinishedStage) -> RowPart:
    """Its size, its costs and where it lies."""
    result = finished.result
    before = stage_pretrained_flops(finished.stage)
    flops, seconds = before + float(result["training_flops"]), float(result["wall_time_s"])
    fields = {
        "parameters": int(result["parameters"]),
        "training_flops": flops,
        "inference_flops_per_token": float(result["inference_flops_per_token"]),
        "decode_mode": result["decode_mode"],
        "wall_time_s": seconds,
        "tokens": float(result["tokens"]),
        "tokens_per_second": float(result["tokens_per_second"]),
        # Results from before it was told are of CPUs.
        "arithmetic": result.get("arithmetic")
        or training_arithmetic(finished.stage.config["model"]["training"]["precision"], "cpu"),
        "pretrained": ", ".join(_pretrained_parts(finished.stage)),
        "model_identity": finished.stage.identity,
        "model_folder": f"{finished.address}/model",
    }
    return RowPart(fields, training_flops=flops, wall_time_s=seconds)


def stage_pretrained_flops(stage: Stage) -> float:
    """FLOPs that went into the model that the stage begins from, as the user states them."""
    return float(stage.config["model"].get("pretrained", {}).get("training_flops", 0.0))


def _pretrained_parts(stage: Stage) -> list[str]:
    """The parts that were trained elsewhere."""
    sections = {"model": stage.config["model"]}
    if "autoencoder" in stage.inputs:
        sections["autoencoder"] = stage.inputs["autoencoder"].config.get("autoencoder", {})
    return sorted(name for name, section in sections.items() if "pretrained" in section)


def import_training() -> None:
    """Import what a training needs."""
    import calm_bench.training  # noqa: F401


LANGUAGE_MODEL = StageKind(
    "language_model",
    run_language_model,
    heading="Language models",
    # 2: the token model's gradients come from the forward pass, summed in another order; see calm_bench.blockwise.
    revision=2,
    get_ready=import_training,
    data_parallel=True,
    changed=language_model_changed,
    brings_code=True,
    impossible=language_model_impossible,
    impossible_beside=other_autoencoder,
    refusal=language_model_refusal,
    left_elsewhere=partial(shards_left_elsewhere, section="model"),
    scratch=("checkpoints", "stop"),
    section="model",
    flops=language_model_flops,
    price=language_model_price,
    cost=language_model_cost,
    workload=LanguageModelWorkload,
    measure=measure_language_model,
    memory_advice=language_model_memory_advice,
    summary=language_model_summary,
    row_part=language_model_row,
    search_metrics={
        "validation_loss": lambda result: float(result["validation"]["loss"]),
        "training_flops": lambda result: float(result["training_flops"]),
        "inference_flops_per_token": lambda result: float(result["inference_flops_per_token"]),
        "parameters": lambda result: float(result["parameters"]),
    },
    streams_metrics=True,
    metric_prefix="",
    artifacts=(PROVENANCE_FILE,),
)
