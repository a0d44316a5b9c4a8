"""What a training by several workers takes (:mod:`calm_bench.training.parallel`): its time, and the memory of each."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from calm_bench.config import Training
from calm_bench.flops import Ledger
from calm_bench.memory import FLOAT, Memory
from pipelines.planning.machines import Machine
from pipelines.study.workload import Speed

CREW_START_S = 20.0
"""Until workers have found each other, besides the imports that a stage of one process has too. Measured on two cores
with two workers."""


def shared_speed(speed: Speed, machine: Machine) -> Speed:
    """Of a training whose steps are divided evenly: what is sent between workers is not counted.

    A validation is not divided: every worker computes it whole.
    """
    return replace(speed, step=speed.step / machine.speedup)


def worker_memory(memory: Memory, training: Training, trained: float, frozen: float, machine: Machine) -> Memory:
    """Of one of ``machine.workers`` at the worst moment, where one process would need ``memory``.

    Args:
        trained: parameters that are trained.
        frozen: parameters that are there besides.
    """
    workers = machine.workers
    parts = dict(memory.parts.parts)
    if training.gradient_accumulation % workers:
        rows = training.batch_size // training.gradient_accumulation
        share = min(1.0, ceil(rows / workers) / rows)
        for name in ("activations", "loss"):
            parts[name] = share * parts.get(name, 0.0)
    if machine.strategy == "ddp":
        # In which gradients are collected to be sent.
        return Memory(Ledger(parts | {"buckets": FLOAT * trained}))
    # Beyond fp32, weights have copies for autocast, which are whole from the forward to the backward pass.
    copies = parts["weights"] / (FLOAT * (trained + frozen)) - 1
    pieces = parts | {
        "weights": FLOAT * (trained / workers + frozen + copies * (trained + frozen)),
        "gradients": parts.get("gradients", 0.0) / workers,
        "optimizer": parts.get("optimizer", 0.0) / workers,
    }
    # It is built whole before it is divided; on CPUs the first worker gathers a checkpoint in the same memory.
    whole = FLOAT * (trained + frozen)
    if machine.device == "cpu":
        whole += pieces["weights"] + pieces["optimizer"] + 2 * FLOAT * trained
    least = {"process": parts["process"], "whole model": whole}
    return Memory(Ledger(max(pieces, least, key=lambda found: sum(found.values()))))
