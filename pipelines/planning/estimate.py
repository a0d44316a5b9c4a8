"""What a planned study takes on a machine: time, memory and disk, by stage, by trial and in all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

from pipelines.planning.calibration import IMPORT_S, Calibration
from pipelines.planning.machines import Machine
from pipelines.planning.plan import Plan, PlannedTrial
from pipelines.planning.schedule import Job, Span, simulated
from pipelines.planning.stage_costs import Speeds, cost_context
from pipelines.planning.text_sizes import text_sizes
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.study.cost import StageCost
from pipelines.study.stage import Stage
from pipelines.study.stage_kind import STAGE_KINDS

RAY_START_S = 4.5
"""From the command to Ray's first stage on a machine where importing takes :data:`IMPORT_S`, MLflow's set-up
included; other machines in proportion. Measured on two cores."""
LOCAL_START_S = 3.0
END_S = 2.0
"""From the last stage to the leaderboard with its pictures, and the last sync with MLflow."""
FASTEST_START = 0.8
"""Share of those seconds that a machine that imports fast is believed to need."""
RAY_BYTES = 1e8
"""Memory of Ray's own processes on a machine."""
DRIVER_BYTES = 4.5e8


@dataclass(frozen=True)
class Range:
    """A cost of one trial over a search space."""

    lowest: float
    median: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range | None:
        return cls(min(values), median(values), max(values)) if values else None


@dataclass(frozen=True)
class Estimate:
    """What a plan costs on one machine. ``None`` stands where the configuration does not tell."""

    machine: Machine
    calibrated: str
    """When this machine was measured; empty where rates are assumed."""
    costs: Mapping[Stage, StageCost]
    spans: Mapping[Stage, Span]
    """When the stages run that are not in the store."""
    seconds: float
    """From the command to its end, what is not known left out."""
    start_s: float
    end_s: float
    unknown: tuple[str, ...]
    """Labels of stages whose time is not known, and is left out."""
    trial_seconds: Mapping[int, float]
    """Seconds of each trial by itself: all its stages, in the store or not, one after the other."""
    disk_bytes: float
    """What the stages that are still to run will leave."""
    scratch_bytes: float
    """What there is besides at the worst moment: checkpoints of the trainings that run at once."""
    disk_unknown: bool
    free_bytes: float | None
    """On the store's disk now."""
    worker_bytes: float
    """Memory of the largest worker."""
    machine_bytes: float
    """Memory of all workers at the worst moment, with Ray and the driver; on a GPU, of the largest worker's GPU."""
    sampled_seconds: Range | None = None
    """Seconds of one trial, over the space of a search whose trials are not known."""
    repeats: float = 1.0
    """How many times as many trials are to run as were drawn for ``costs`` and ``spans``."""

    @property
    def gpu_hours(self) -> float | None:
        """GPU hours of all stages that use one; None on a CPU."""
        if self.machine.device == "cpu":
            return None
        busy = sum(
            (span.end - span.start) * workers_of(stage, self.machine)
            for stage, span in self.spans.items()
            if STAGE_KINDS.get(stage.kind).uses_torch
        )
        return busy * self.repeats * self.machine.gpus_per_stage / 3600

    @property
    def energy_kwh(self) -> float | None:
        """kWh of the GPU hours at the boards' rated power: an upper bound for the boards, without host and cooling."""
        hours, watts = self.gpu_hours, self.machine.watts
        return None if hours is None or watts is None else hours * watts / 1000

    def price(self, per_hour: float | None) -> float | None:
        """What the machine costs from the command to its end, in the currency of ``per_hour``; None without one."""
        return None if per_hour is None else self.seconds / 3600 * per_hour

    @property
    def work_seconds(self) -> float:
        """Seconds of all stages one after the other."""
        return self.repeats * sum(span.end - span.start for span in self.spans.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "machine": self.machine.to_dict(),
            "calibrated": self.calibrated or None,
            "seconds": self.seconds,
            "start_seconds": self.start_s,
            "end_seconds": self.end_s,
            "work_seconds": self.work_seconds,
            "gpu_hours": self.gpu_hours,
            "energy_kwh": self.energy_kwh,
            "not_estimated": list(self.unknown),
            "disk_bytes": self.disk_bytes,
            "scratch_bytes": self.scratch_bytes,
            "disk_is_lower_bound": self.disk_unknown,
            "free_disk_bytes": self.free_bytes,
            "largest_worker_bytes": self.worker_bytes,
            "memory_bytes": self.machine_bytes,
            "trial_seconds": {str(number): seconds for number, seconds in self.trial_seconds.items()},
            "sampled_trial_seconds": None if self.sampled_seconds is None else vars(self.sampled_seconds),
            "stages": {
                stage.identity: {
                    "kind": stage.kind,
                    "label": str(stage),
                    "seconds": cost.seconds,
                    "measured": cost.measured,
                    "memory_bytes": None if cost.memory is None else cost.memory.total,
                    "memory_by_part": None if cost.memory is None else dict(cost.memory.parts.parts),
                    "disk_bytes": cost.disk_bytes,
                    "scratch_bytes": cost.scratch_bytes,
                    "runs": None if stage not in self.spans else list(vars(self.spans[stage]).values()),
                }
                for stage, cost in self.costs.items()
            },
        }


def workers_of(stage: Stage, machine: Machine) -> int:
    """How many processes run the stage."""
    return machine.workers if STAGE_KINDS.get(stage.kind).data_parallel else 1


def estimate(plan: Plan, store: Store, machine: Machine, calibration: Calibration) -> Estimate:
    """What ``plan`` takes on ``machine``; nothing is run."""
    study = plan.study
    speeds = Speeds(machine, calibration)
    drawn = plan.drawn if plan.sampled is not None else ()
    costs: dict[Stage, StageCost] = {}
    for trial in (*plan.trials, *drawn):
        _add_costs(costs, trial, study, store, speeds)
    trials = drawn or plan.trials
    graphs = [trial.graph for trial in trials if trial.graph is not None]
    listed = list(dict.fromkeys(stage for graph in graphs for stage in graph.stages))
    to_run = [stage for stage in listed if not (stage in plan.drawn_done if drawn else store.is_done(stage))]
    repeats = plan.sampled.num_to_run / len(drawn) if plan.sampled is not None and drawn else 1.0
    if not repeats:
        to_run = []
    jobs = [Job(stage, costs[stage].seconds or 0.0, STAGE_KINDS.get(stage.kind).uses_torch) for stage in to_run]
    # Imports that were measured with their files in memory say little of how fast Ray starts.
    ratio = max(calibration.import_s / IMPORT_S, FASTEST_START)
    # GPUs do not slow each other down as cores do.
    alone = calibration.alone if machine.device == "cpu" else 1.0
    spans = simulated(jobs, graphs, machine.parallelism, alone, calibration.import_s)
    start = ratio * (LOCAL_START_S if study.execution.backend == "local" else RAY_START_S)
    if not to_run:
        start = ratio * LOCAL_START_S
    end = ratio * END_S
    disk = [costs[stage].disk_bytes for stage in to_run]
    memory = {s: cost.memory.total for s in to_run if (cost := costs[s]).memory is not None}
    at_once = sorted((workers_of(s, machine) * each for s, each in memory.items()), reverse=True)[: machine.parallelism]
    largest = max(memory.values(), default=0.0)
    overhead = DRIVER_BYTES + (0.0 if study.execution.backend == "local" else RAY_BYTES)
    own = {trial.number: _alone(trial, costs) for trial in trials if trial.graph is not None}
    return Estimate(
        machine=machine,
        calibrated=calibration.measured,
        costs=costs,
        spans=spans,
        seconds=start + repeats * max((span.end for span in spans.values()), default=0.0) + end,
        start_s=start,
        end_s=end,
        unknown=tuple(dict.fromkeys(str(stage) for stage in to_run if costs[stage].seconds is None)),
        trial_seconds={} if drawn else own,
        disk_bytes=repeats * sum(each for each in disk if each is not None),
        scratch_bytes=worst_scratch(spans, costs),
        disk_unknown=any(each is None for each in disk),
        free_bytes=_free(store.root),
        worker_bytes=largest,
        machine_bytes=sum(at_once) + overhead if memory and machine.device == "cpu" else largest,
        sampled_seconds=Range.of(list(own.values())) if drawn else None,
        repeats=repeats,
    )


def _add_costs(
    costs: dict[Stage, StageCost],
    trial: PlannedTrial,
    study: Study,
    store: Store,
    speeds: Speeds,
) -> None:
    if trial.graph is None or trial.price is None or trial.experiment is None:
        return
    sizes = text_sizes(trial.experiment, trial.graph, store)
    context = cost_context(trial.experiment, trial.graph, trial.price, sizes, speeds, study.execution.training)
    for stage in trial.graph.stages:
        if stage not in costs:
            costs[stage] = STAGE_KINDS.get(stage.kind).cost(stage, context)


def _alone(trial: PlannedTrial, costs: Mapping[Stage, StageCost]) -> float:
    assert trial.graph is not None
    return sum(costs[stage].seconds or 0.0 for stage in trial.graph.stages)


def worst_scratch(spans: Mapping[Stage, Span], costs: Mapping[Stage, StageCost]) -> float:
    """Bytes of the checkpoints of all stages that run at one moment, at the worst."""
    changes = [(span.start, costs[stage].scratch_bytes) for stage, span in spans.items()]
    changes += [(span.end, -costs[stage].scratch_bytes) for stage, span in spans.items()]
    # A stage that ends at a moment makes room before another begins at it.
    return max(accumulate(change for _, change in sorted(changes)), default=0.0)


def _free(root: Path) -> float | None:
    """Bytes free where the store is, or will be made."""
    folder = root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return None
