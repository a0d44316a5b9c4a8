"""``--budget``: a study that would cost more is not started."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from calm_bench.errors import OVER_BUDGET, CalmBenchError
from calm_bench.overrides import ConfigurationError
from pipelines.common.numbers import compact, duration, printable, scientific
from pipelines.planning.estimate import Estimate
from pipelines.planning.plan import Plan
from pipelines.planning.vocabulary_notes import vocabulary_notes
from pipelines.study.equal_budget import parse_seconds
from pipelines.study.stage_kind import STAGE_KINDS

Unit = Literal["time", "flops", "gpu-hours"]

_FLOPS = re.compile(r"([0-9.]+(?:e[-+]?[0-9]+)?)(?:flops?)?")
_GPU_HOURS = re.compile(r"([0-9.]+(?:e[-+]?[0-9]+)?)gpu-?(?:hours?|h)")
NAMED = 3
"""Trials and stages that a refusal names."""


class OverBudget(CalmBenchError):
    """The study would cost more than was allowed; the message says how much and what most of it is for."""

    exit_code = OVER_BUDGET


@dataclass(frozen=True)
class Limit:
    """The most that a study may cost."""

    unit: Unit
    amount: float

    def show(self, amount: float) -> str:
        """``amount`` in the limit's unit, for people."""
        if self.unit == "time":
            return duration(amount)
        return f"{scientific(amount)} FLOPs" if self.unit == "flops" else f"{compact(amount)} GPU-hours"


def parse_limit(text: str) -> Limit:
    """``2h``, ``90min``, ``1e15`` (training FLOPs), ``500 gpu-hours``.

    Raises:
        ConfigurationError: it is none of these.
    """
    squeezed = text.strip().lower().replace(" ", "")
    found: Limit | None = None
    if (seconds := parse_seconds(squeezed)) is not None:
        found = Limit("time", seconds)
    elif matched := _GPU_HOURS.fullmatch(squeezed):
        found = Limit("gpu-hours", _number(matched[1]))
    elif matched := _FLOPS.fullmatch(squeezed):
        found = Limit("flops", _number(matched[1]))
    if found is None or not 0 < found.amount < math.inf:
        raise ConfigurationError(
            f"--budget {text}: give a time (90min, 2h, 1.5d), training FLOPs (1e15) or GPU-hours (500gpu-hours)"
        )
    return found


def check_limit(limit: Limit, plan: Plan, estimate: Estimate) -> None:
    """
    Raises:
        OverBudget: what is still to run costs more than ``limit``.
        ConfigurationError: GPU-hours of a machine without GPUs.
    """
    cost = cost_of(limit.unit, plan, estimate)
    if cost <= limit.amount:
        return
    by_trial, by_stage = _shares(limit.unit, plan, estimate)
    where = "" if limit.unit == "flops" else f" on {estimate.machine.label}{_basis(estimate)}"
    lines = [
        f"{printable(plan.study.name)} would cost {limit.show(cost)}{where}, more than the budget of "
        f"{limit.show(limit.amount)}; nothing was started."
    ]
    for title, shares in (("trials", by_trial), ("stages", by_stage)):
        largest = sorted(shares.items(), key=lambda item: -item[1])[:NAMED]
        if largest:
            named = ", ".join(f"{printable(name)} {limit.show(amount)}" for name, amount in largest)
            lines.append(f"  Largest {title}: {named}.")
    lines += [f"  {note}" for note in vocabulary_notes(plan)]
    raise OverBudget("\n".join(lines))


def cost_of(unit: Unit, plan: Plan, estimate: Estimate) -> float:
    """What is still to run costs.

    Raises:
        ConfigurationError: GPU-hours of a machine without GPUs.
    """
    if unit == "time":
        return estimate.seconds
    if unit == "flops":
        return plan.flops_to_run if plan.sampled is None else plan.sampled.flops_to_run
    if estimate.gpu_hours is None:
        raise ConfigurationError(
            f"--budget in GPU-hours: {estimate.machine.label} runs stages on CPUs; name GPUs (--machine h100x8), or "
            "set execution.gpus_per_stage"
        )
    return estimate.gpu_hours


def _shares(unit: Unit, plan: Plan, estimate: Estimate) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """What trials and stages that are still to run cost: by label. A shared stage counts in each of its trials."""
    by_stage: dict[str, float] = {}
    by_trial: dict[str, float] = {}
    for planned in plan.stages:
        stage = planned.stage
        if planned.state == "cached":
            continue
        if unit == "flops":
            cost = planned.flops
        else:
            cost = estimate.costs[stage].seconds or 0.0
            if unit == "gpu-hours":
                cost = cost * estimate.machine.gpus_per_stage / 3600 if STAGE_KINDS.get(stage.kind).uses_torch else 0.0
        for number in planned.trials:
            label = plan.trials[number].label
            by_trial[label] = by_trial.get(label, 0.0) + cost
        name = str(stage)
        if len(planned.trials) == 1 and not STAGE_KINDS.get(stage.kind).label_is_enough:
            name = f"{stage} ({plan.trials[planned.trials[0]].label})"
        by_stage[name] = by_stage.get(name, 0.0) + cost
    return by_trial, by_stage


def _basis(estimate: Estimate) -> str:
    return "" if estimate.calibrated or estimate.machine.peak else " (not measured yet: calm-bench plan --calibrate)"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
