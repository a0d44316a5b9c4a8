"""Machines that a study could run on: this one, and GPUs by name with their peak rates."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from math import ceil
from pathlib import Path
from typing import Literal

from calm_bench.devices import available_cpus, total_memory
from calm_bench.overrides import ConfigurationError
from calm_bench.registry import did_you_mean
from pipelines.study.config import Execution
from pipelines.study.workload import Workload

THIS_MACHINE = "local"
MFU = 0.25
"""Model FLOPs utilisation of a GPU in training where neither the user nor the kind of model says another
(:attr:`pipelines.study.workload.Workload.gpu_utilisation`)."""
SCORING_SHARE = 0.25
"""Share of a training's rate that scoring and sampling reach on a GPU: their steps are short."""
CORE_FLOPS_PER_SECOND = 3.3e10
"""What one CPU core reaches in training small models in fp32, where nothing has been measured: seen on two cores of a
cloud machine, both busy (docs/how-to/price.md)."""


@dataclass(frozen=True)
class Gpu:
    """Data sheet: dense matrix products in bf16 (fp16 where there is no bf16) with sums in fp32, and memory."""

    label: str
    flops_per_second: float
    memory_bytes: float
    watts: float
    """Rated power of the board; of a GH200, of the module with its CPU."""


GPUS: Mapping[str, Gpu] = {
    "t4": Gpu("T4", 6.5e13, 16e9, 70),
    "v100": Gpu("V100", 1.25e14, 32e9, 300),
    "a10": Gpu("A10", 1.25e14, 24e9, 150),
    "l4": Gpu("L4", 1.21e14, 24e9, 72),
    "4090": Gpu("RTX 4090", 1.65e14, 24e9, 450),
    "a100": Gpu("A100", 3.12e14, 80e9, 400),
    "l40s": Gpu("L40S", 3.62e14, 48e9, 350),
    "h100": Gpu("H100", 9.89e14, 80e9, 700),
    "h200": Gpu("H200", 9.89e14, 141e9, 700),
    "gh200": Gpu("GH200", 9.89e14, 96e9, 1000),
    "mi300x": Gpu("MI300X", 1.307e15, 192e9, 750),
    "b200": Gpu("B200", 2.25e15, 180e9, 1000),
}


@dataclass(frozen=True)
class Machine:
    """What decides how long a study takes somewhere."""

    name: str
    label: str
    device: Literal["cpu", "cuda"]
    parallelism: int
    """Stages that run at once."""
    memory_bytes: float | None
    """Memory of a GPU, for its worker; of a CPU machine, for all workers together."""
    flops_per_second: float
    """What a worker reaches in training, where nothing has been measured."""
    scoring_flops_per_second: float
    is_this: bool = False
    gpus_per_stage: float = 0.0
    workers: int = 1
    """Workers of a training, each with what a stage is given; other stages have one."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    speedup: float = 1.0
    """How many times as fast as one its workers train: their number, unless they have fewer CPUs."""
    gpu: str = ""
    """Its name, and below its peak rate and the share of it that is assumed."""
    watts: float | None = None
    """Rated power of one GPU; None on a CPU machine, whose is not known."""
    peak: float = 0.0
    mfu: float | None = None
    """The share of the peak that the user states for all models; None leaves it to their kinds."""

    def rates_of(self, workload: Workload) -> tuple[float, float]:
        """FLOPs a second of a worker in training ``workload``, and in scoring and sampling, unless measured."""
        share = 1.0 if self.mfu is not None or self.device == "cpu" else workload.gpu_utilisation / MFU
        return self.flops_per_second * share, self.scoring_flops_per_second * share

    def to_dict(self) -> dict[str, object]:
        return dict(vars(self))


def machine_named(text: str, execution: Execution, mfu: float | None = None) -> Machine:
    """The machine ``local``, or GPUs as ``h100`` or ``h100x8``.

    Raises:
        ConfigurationError: no such GPU (with the nearest name), no number of them or fewer than a training's workers
            take, or a utilisation outside (0, 1].
    """
    if mfu is not None and not 0 < mfu <= 1:
        raise ConfigurationError(f"--mfu {mfu:g} is no share of a peak rate: give more than 0 and at most 1")
    name = text.strip().lower()
    if name == THIS_MACHINE:
        return this_machine(execution)
    matched = re.fullmatch(r"(.+?)(?:x(\d{1,6}))?", name)
    gpu, count = (name, "1") if matched is None else (matched[1], matched[2] or "1")
    if gpu not in GPUS:
        known = [THIS_MACHINE, *GPUS]
        raise ConfigurationError(
            f"--machine {text}: there is no machine {gpu!r}{did_you_mean(gpu, known)} (several GPUs: h100x8)"
        )
    if int(count) < 1:
        raise ConfigurationError(f"--machine {text}: a machine has one GPU or more")
    return _of_gpus(name, GPUS[gpu], int(count), execution, mfu)


def this_machine(execution: Execution) -> Machine:
    """The machine that this process runs on, as ``execution`` uses it."""
    gpus = local_gpus() if execution.gpus_per_stage > 0 and execution.device != "cpu" else []
    if gpus:
        found = _of_gpus(THIS_MACHINE, gpus[0], len(gpus), execution)
        return Machine(**{**vars(found), "label": f"this machine ({found.label})", "is_this": True})
    cpus = available_cpus()
    if execution.backend == "local":
        parallelism = 1
    else:
        parallelism = execution.max_parallel or max(1, int(cpus / (execution.cpus_per_stage * execution.workers)))
    # Only the cluster knows what it consists of.
    elsewhere = "" if execution.address is None else ", not the cluster of execution.address"
    memory = total_memory()
    if memory is not None and execution.memory_per_stage is not None:
        each = execution.memory_per_stage * execution.workers * 2**30
        parallelism = max(1, min(parallelism, int(memory / each)))
    return Machine(
        name=THIS_MACHINE,
        label=f"this machine ({cpus} {'CPU' if cpus == 1 else 'CPUs'}{elsewhere})",
        device="cpu",
        parallelism=parallelism,
        memory_bytes=memory,
        flops_per_second=CORE_FLOPS_PER_SECOND,
        scoring_flops_per_second=CORE_FLOPS_PER_SECOND,
        is_this=True,
        workers=execution.workers,
        strategy=execution.strategy,
        speedup=min(execution.workers, cpus),
    )


def _of_gpus(name: str, gpu: Gpu, count: int, execution: Execution, mfu: float | None = None) -> Machine:
    per_stage = execution.gpus_per_stage or 1.0
    workers = execution.workers
    if workers > 1 and count < workers * per_stage:
        one, whose = ("h100", "this machine") if name == THIS_MACHINE else (re.sub(r"x\d+$", "", name), name)
        raise ConfigurationError(
            f"execution.workers={workers} share a training on {workers * per_stage:g} GPUs, and {whose} has {count}: "
            f"name more of them (such as --machine {one}x{ceil(workers * per_stage)}), or lower it"
        )
    at_once = max(1, int(count / (per_stage * workers)))
    # A share of a GPU is a share of its rate; of several a training here uses one.
    rate = gpu.flops_per_second * (MFU if mfu is None else mfu) * min(1.0, per_stage)
    return Machine(
        name=name,
        label=f"{count} x {gpu.label}" if count > 1 else gpu.label,
        device="cuda",
        parallelism=at_once if execution.max_parallel is None else min(at_once, execution.max_parallel),
        memory_bytes=gpu.memory_bytes * min(1.0, per_stage),
        flops_per_second=rate,
        scoring_flops_per_second=rate * SCORING_SHARE,
        gpus_per_stage=per_stage,
        workers=workers,
        strategy=execution.strategy,
        speedup=workers,
        gpu=gpu.label,
        watts=gpu.watts,
        peak=gpu.flops_per_second,
        mfu=mfu,
    )


def local_gpus(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[Gpu]:
    """The NVIDIA GPUs of this machine that this process may see, as its driver lists them, without torch; one that is
    not in the table is taken for a T4."""
    found = []
    for information in sorted(folder.glob("*/information")):
        try:
            model = information.read_text(errors="replace").lower()
        except OSError:
            continue
        fitting = [gpu for name, gpu in GPUS.items() if re.search(rf"\b{name}\b", model)]
        found.append(fitting[-1] if fitting else GPUS["t4"])
    return _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _visible(gpus: list[Gpu], names: str | None) -> list[Gpu]:
    """Those of ``names``, by number or by identity with commas, as CUDA reads them: up to the first that is none."""
    if names is None:
        return gpus
    wanted = list(takewhile(lambda name: name and name != "-1", map(str.strip, names.split(","))))
    if all(map(str.isdigit, wanted)):
        return [gpus[int(name)] for name in takewhile(lambda name: int(name) < len(gpus), wanted)]
    # Nothing here tells which is which; a machine has GPUs of one kind.
    return gpus[: len(wanted)]
