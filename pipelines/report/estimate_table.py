"""An estimate for people: time, memory and disk on one machine, in a few lines."""

from __future__ import annotations

from math import ceil

from pipelines.common.numbers import compact, duration, printable, scientific
from pipelines.planning.estimate import Estimate
from pipelines.study.stage import Stage
from pipelines.study.stage_kind import STAGE_KINDS


def machine_lines(estimate: Estimate, price_per_hour: float | None = None) -> list[str]:
    """Time, price, energy, memory and disk on one machine, in words."""
    machine = estimate.machine
    at_once = f"{machine.parallelism} {'stage' if machine.parallelism == 1 else 'stages'} at once"
    shared = f", {machine.workers} workers for each training ({machine.strategy})" if machine.workers > 1 else ""
    lines = [f"On {machine.label}, {at_once}{shared}, {_basis(estimate)}:"]
    if not estimate.spans:
        return [*lines, "  Time     nothing is left to run"]
    time = f"  Time     {long_duration(estimate.seconds)} in all"
    time += f", {long_duration(estimate.work_seconds)} of work" if machine.parallelism > 1 else ""
    if estimate.gpu_hours is not None:
        time += f", {compact(estimate.gpu_hours)} {machine.gpu} hours"
    if estimate.sampled_seconds is not None:
        spread = estimate.sampled_seconds
        lowest, middle, highest = (long_duration(seconds) for seconds in vars(spread).values())
        time += f"; a trial {lowest} to {highest}, median {middle}"
    lines.append(time)
    if estimate.unknown:
        lines.append(
            f"           without {', '.join(printable(label) for label in estimate.unknown)}: not known before"
        )
    lines += _cost_lines(estimate, price_per_hour)
    lines += [*_memory_lines(estimate), *_disk_lines(estimate)]
    return lines


def _cost_lines(estimate: Estimate, price_per_hour: float | None) -> list[str]:
    parts = []
    if (price := estimate.price(price_per_hour)) is not None:
        parts.append(f"{price:,.2f} at {price_per_hour:g} an hour")
    if (energy := estimate.energy_kwh) is not None:
        shown = f"{energy:,.0f}" if energy >= 10 else f"{energy:.2g}"
        parts.append(f"{shown} kWh at a board's rated {estimate.machine.watts:.0f} W, without host and cooling")
    return [f"  Cost     {'; '.join(parts)}"] if parts else []


def _basis(estimate: Estimate) -> str:
    machine = estimate.machine
    if machine.peak and not estimate.calibrated:
        share = (
            "a share assumed by kind of model, nothing compiled,"
            if machine.mfu is None
            else f"{100 * machine.mfu:.0f} %"
        )
        return f"at {share} of the peak of {scientific(machine.peak)} FLOP/s (--mfu)"
    to_run = [estimate.costs[stage] for stage in estimate.spans]
    if not estimate.calibrated:
        return f"at an assumed {scientific(machine.flops_per_second)} FLOP/s each (--calibrate measures this machine)"
    day = estimate.calibrated.partition("T")[0]
    if all(cost.measured for cost in to_run):
        return f"as measured on {day}"
    return f"scaled from models measured on {day} (--calibrate measures these)"


def _memory_lines(estimate: Estimate) -> list[str]:
    machine = estimate.machine
    largest = max(
        (stage for stage in estimate.spans if estimate.costs[stage].memory is not None),
        key=lambda stage: memory_of(estimate, stage),
        default=None,
    )
    if largest is None:
        return []
    text = f"  Memory   up to {amount_of_bytes(estimate.worker_bytes)} for a worker ({printable(str(largest))})"
    if machine.device == "cpu":
        text += f", {amount_of_bytes(estimate.machine_bytes)} in all with Ray and the driver"
    lines = [text]
    if machine.memory_bytes is not None:
        has = f"{amount_of_bytes(machine.memory_bytes)}"
        if estimate.machine_bytes > machine.memory_bytes:
            whose = "its workers have" if machine.device == "cpu" else "the GPU has"
            lines.append(f"           TOO MUCH: {whose} {has}.{_advice(largest, estimate)}")
        else:
            lines[0] += f"; there are {has}"
    if divided := _divided_batches(estimate):
        lines.append(f"           sequences at once (execution.micro_batch): {', '.join(divided)}")
    return lines


def _divided_batches(estimate: Estimate) -> list[str]:
    """The trainings of whose batches memory holds a part at once."""
    found: dict[str, None] = {}
    for stage in estimate.spans:
        sequences, section = estimate.costs[stage].sequences, STAGE_KINDS.get(stage.kind).section
        if sequences is None or section is None:
            continue
        training = stage.config[section]["training"]
        rows = training["batch_size"] // training["gradient_accumulation"]
        if sequences < ceil(rows / estimate.machine.workers):
            found[f"{printable(str(stage))} {sequences} of {rows}"] = None
    return list(found)


def _advice(stage: Stage, estimate: Estimate) -> str:
    """What would make it fit."""
    cost = estimate.costs[stage]
    if cost.sequences is None or estimate.machine.device == "cpu":
        return " Let fewer run at once (execution.max_parallel), or make micro-batches smaller (execution.micro_batch)."
    if cost.sequences > 1:
        return " execution.micro_batch=auto divides its micro-batches until they fit, for the same steps."
    return (
        " Not even one sequence fits: lower the model's size or its sequence_length, let its layers be computed again "
        "(execution.activation_checkpointing=true), or divide it among workers (execution.workers=2 or more with "
        "execution.strategy=fsdp)."
    )


def _disk_lines(estimate: Estimate) -> list[str]:
    more = "more than " if estimate.disk_unknown else ""
    text = f"  Disk     {more}{amount_of_bytes(estimate.disk_bytes)} will stay"
    if estimate.scratch_bytes:
        text += f", up to {amount_of_bytes(estimate.scratch_bytes)} of checkpoints and parts while it runs"
    if estimate.free_bytes is None:
        return [text]
    text += f"; {amount_of_bytes(estimate.free_bytes)} free"
    if estimate.disk_bytes + estimate.scratch_bytes > estimate.free_bytes:
        return [text, "           TOO MUCH: the disk would be full before the end"]
    return [text]


def long_duration(seconds: float) -> str:
    """Days where hours would be many."""
    if seconds < 1:
        return "<1 s"
    return duration(seconds) if seconds < 2 * 86400 else f"{seconds / 86400:,.1f} days"


def amount_of_bytes(number: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.0f} kB"


def memory_of(estimate: Estimate, stage: Stage) -> float:
    memory = estimate.costs[stage].memory
    return 0.0 if memory is None else memory.total
