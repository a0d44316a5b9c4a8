"""Devices by name, how a GPU multiplies, and the CPUs and the memory that this process may use."""

from __future__ import annotations

import os
import platform
import re

from calm_bench.cgroups import cpu_quota, memory_limit


def device_name(device: str) -> str:
    """The device with its model, as in ``cuda: NVIDIA H100``."""
    if device.startswith("cuda"):
        import torch

        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {platform.processor() or platform.machine()}"


def resolve_device(device: str) -> str:
    """``device`` itself, or for ``auto`` a GPU where there is one and the CPU otherwise.

    Raises:
        ConfigurationError: it is no device, or a GPU that torch cannot use here.
    """
    if device == "cpu":
        return device
    from calm_bench.problems import ConfigurationError

    if device != "auto" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise ConfigurationError(f"there is no device {device!r}: auto, cpu, cuda, or cuda:N for one of several GPUs")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if count else "cpu"
    if count == 0:
        built = torch.backends.cuda.is_built()
        reason = "no NVIDIA GPU can be used" if built else "this torch was built for CPUs alone"
        raise ConfigurationError(f"there is no {device} here: {reason}; leave the device out, or name cpu")
    if ":" in device and int(device.partition(":")[2]) >= count:
        raise ConfigurationError(f"there is no {device} here: the last GPU is cuda:{count - 1}")
    return device


def set_tf32(device: str, wanted: bool) -> None:
    """Let this process multiply fp32 matrices in TF32 on a GPU (ten bits of mantissa, several times as fast), or not.

    Scoring and drawing use it: their sampling error is larger by orders of magnitude. Trainings in fp32 do not.
    """
    if device.startswith("cuda"):
        import torch

        torch.set_float32_matmul_precision("high" if wanted else "highest")


def uses_tf32(device: str) -> bool:
    """Whether matrix products of fp32 on ``device`` are made in TF32 in this process."""
    if not device.startswith("cuda"):
        return False
    import torch

    return torch.get_float32_matmul_precision() != "highest"


def available_cpus() -> int:
    """CPUs that this process may use: those it may run on, and no more than its container's quota, rounded down, or
    than its job was given."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [count, *(int(limit) for limit in (cpu_quota(), _given_by_slurm()) if limit is not None)]
    return max(1, min(limits))


def _given_by_slurm() -> int | None:
    """CPUs of this machine that belong to the job; a cluster may leave it to its users to keep to them."""
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return int(given) if "SLURM_JOB_ID" in os.environ and given.isdigit() else None


def available_memory(device: str) -> float | None:
    """Bytes that a training on ``device`` may use: of a GPU what is free and what this process has of it already, its
    model included; else what this machine or container has; ``None`` where nobody tells."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    return total_memory()


def total_memory() -> float | None:
    """Bytes of memory that this machine, or the container this process is in, has; ``None`` where it does not tell."""
    try:
        total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return None
    limit = memory_limit()
    return total if limit is None else min(total, limit)


def address_limit() -> int | None:
    """Bytes of addresses that this process may have (``ulimit -v``), which are more than it has memory; ``None`` where
    nothing limits them."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft
