"""What several workers for a training change of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import LanguageModel, Training
from calm_bench.devices import available_cpus
from calm_bench.flops import CostBreakdown, layer_parameters, parameter_count
from calm_bench.memory import training_memory
from calm_bench.overrides import ConfigurationError
from calm_bench.worker_memory import divided_memory, rows_at_once
from pipelines.planning.estimate import Estimate, estimate
from pipelines.planning.forecast import SpeedCache, default_machines
from pipelines.planning.machines import machine_named
from pipelines.planning.planner import plan_study
from pipelines.report.estimate_table import machine_lines
from pipelines.store.store import Store
from pipelines.study.config import Execution, Study
from pipelines.study.cost import Workers
from pipelines.study.kinds.training_cost import GROUP_START_S, worker_seconds
from pipelines.study.price import TrainingPrice
from pipelines.study.workload import Speed

VOCABULARY = 1000
MODEL = LanguageModel(kind="token", training=Training(num_steps=10, batch_size=8, sequence_length=128))
PARAMETERS = parameter_count(MODEL, None, VOCABULARY).total
LAYER = layer_parameters(MODEL)


def parts(device: Any = "cuda", batch: int = 8, accumulation: int = 1, **execution: Any) -> dict[str, float]:
    """Bytes of a worker, by part."""
    training = MODEL.training.model_copy(update={"batch_size": batch, "gradient_accumulation": accumulation})
    model = MODEL.model_copy(update={"training": training})
    name = "h100x8" if device == "cuda" else "local"
    machine = machine_named(name, Execution(**execution))
    memory = training_memory(model, None, VOCABULARY, device, rows_at_once(training, machine.workers))
    sizes = PARAMETERS, 0.0, machine.device, LAYER, MODEL.num_layers
    divided = divided_memory(memory, machine.workers, machine.strategy, *sizes)
    return dict(divided.parts.parts)


def test_workers_of_a_training_take_a_machine_together() -> None:
    eight = machine_named("h100x8", Execution(gpus_per_stage=1, workers=4))
    assert (eight.parallelism, eight.speedup) == (2, 4)
    with pytest.raises(ConfigurationError, match=r"on 8 GPUs, and h100x4 has 4: .* --machine h100x8"):
        machine_named("h100x4", Execution(gpus_per_stage=1, workers=8))
    with pytest.raises(ConfigurationError, match="--machine mi300xx2"):
        machine_named("mi300x", Execution(gpus_per_stage=1, workers=2))
    here = machine_named("local", Execution(workers=3 * available_cpus()))
    assert (here.parallelism, here.speedup) == (1, available_cpus()), "no more than there are CPUs"
    assert default_machines(Execution(gpus_per_stage=1, workers=8)) in (["h100x8"], ["local"])


def test_workers_divide_the_rows_of_a_micro_batch_or_take_whole_ones() -> None:
    alone = parts()
    assert parts(workers=4)["activations"] == pytest.approx(alone["activations"] / 4)
    assert parts(workers=3)["activations"] == pytest.approx(alone["activations"] * 3 / 8)
    assert parts(workers=2, accumulation=2)["activations"] == parts(accumulation=2)["activations"]
    assert parts(workers=4)["buckets"] == 4 * PARAMETERS
    assert parts(workers=4)["optimizer"] == alone["optimizer"]


def test_fully_sharded_workers_hold_a_part_of_the_model() -> None:
    alone, eight = parts(), parts(workers=8, strategy="fsdp")
    assert eight["optimizer"] == pytest.approx(alone["optimizer"] / 8)
    assert eight["gradients"] == pytest.approx(alone["gradients"] / 8)
    # A layer and the next are gathered in two bytes; what is no layer is whole in four, and has copies for autocast.
    layers = LAYER * MODEL.num_layers
    copies = alone["weights"] - 4 * PARAMETERS - 2 * layers
    gathered = 2 * 2 * LAYER + 4 * (PARAMETERS - layers)
    assert eight["weights"] == pytest.approx(4 * PARAMETERS / 8 + gathered + copies)
    # Hardly anything to keep for the backward pass: then the finished model is the worst, gathered by one beside
    # its half of weights and of the optimizer's state.
    little = parts("cpu", batch=2, workers=2, strategy="fsdp")
    assert sum(little.values()) >= little["process"] + (4 + 2 + 4) * PARAMETERS


def test_workers_share_steps_and_validations_alike() -> None:
    price = TrainingPrice(CostBreakdown(), 1000, 0, CostBreakdown())
    training = MODEL.training.model_copy(update={"validate_every": 10})
    speed = Speed(step=1.0, validation_token=1e-4)
    alone = worker_seconds(price, training, speed, Workers())
    held_out = 100 * training.validation_batches * 8 * 128
    assert alone == pytest.approx(1000 + 1e-4 * held_out)
    together = worker_seconds(price, training, speed, Workers(4, speedup=4.0))
    assert together == pytest.approx(GROUP_START_S + alone / 4)


def test_an_estimate_counts_all_workers(tmp_path: Path) -> None:
    def of(machine: str, **execution: Any) -> Estimate:
        settings = Execution(gpus_per_stage=1, **execution)
        # Large enough for training to take the most memory, not evaluation, which no workers share.
        training = {"num_steps": 100_000, "batch_size": 512}
        study = Study.model_validate(
            {"name": "big", "execution": settings, "model": {"kind": "token", "training": training},
             "samples": {"num_prompts": 0}, "evaluation": {"max_windows": 1, "context_length": 64}}
        )  # fmt: skip
        book = SpeedCache(machine_named(machine, settings), lambda text: None, tmp_path / "calibration.json")
        store = Store(tmp_path)
        return estimate(plan_study(study, store, book.known), store, book.machine, book.calibration)

    one, eight = of("h100"), of("h100x8", workers=8)
    assert one.gpu_hours is not None
    assert eight.gpu_hours is not None
    assert eight.seconds < one.seconds / 2
    assert eight.gpu_hours >= one.gpu_hours
    assert eight.worker_bytes < one.worker_bytes
    assert "1 stage at once, 8 workers for each training (ddp)" in machine_lines(eight)[0]
