"""The speeds of models on a machine, and what its stages are priced by there."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from calm_bench.config import Experiment
from calm_bench.training_options import TrainingOptions
from pipelines.planning.calibration import Calibration, Measured
from pipelines.planning.machines import CORE_FLOPS_PER_SECOND, Machine
from pipelines.study.cost import CostContext, TextSizes, Workers
from pipelines.study.price import Price
from pipelines.study.stage import StageGraph
from pipelines.study.stage_kind import workloads_of
from pipelines.study.workload import Speed, Workload


@dataclass(frozen=True)
class Speeds:
    """Speeds of models on one machine: measured, scaled by FLOPs from the nearest that is measured, or assumed."""

    machine: Machine
    calibration: Calibration

    def is_measured(self, workload: Workload) -> bool:
        return self.calibration.has(workload)

    def of(self, workload: Workload) -> Speed:
        """The speed of ``workload``."""
        if self.is_measured(workload):
            return self.calibration.models[workload.identity].speed
        alike = [model for model in self.calibration.models.values() if model.kind == workload.kind]
        assumed = workload.speed_at(*self.machine.rates_of(workload))
        if not alike:
            return assumed

        def distance(model: Measured) -> float:
            return abs(log(model.work.step / workload.work.step)) + 3.0 * (model.is_token != workload.is_token)

        return min(alike, key=distance).scaled_to(workload, assumed)


def assumed_speed(workload: Workload) -> Speed:
    """The speed of ``workload`` on one CPU core where nothing has been measured."""
    return workload.speed_at(CORE_FLOPS_PER_SECOND, CORE_FLOPS_PER_SECOND)


def cost_context(
    experiment: Experiment,
    graph: StageGraph,
    price: Price,
    sizes: TextSizes,
    speeds: Speeds,
    training: TrainingOptions,
) -> CostContext:
    """What the stages ``graph`` of ``experiment`` are priced by on the machine of ``speeds``."""
    machine = speeds.machine
    return CostContext(
        experiment,
        price,
        sizes,
        {workload.kind: workload for workload in workloads_of(graph, experiment, price.vocab_size)},
        machine.device,
        speeds.of,
        speeds.is_measured,
        Workers(machine.workers, machine.strategy, machine.speedup),
        training,
        machine.memory_bytes,
        machine.parallelism,
    )
