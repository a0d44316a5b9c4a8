"""Devices by name, and the CPUs that this process may use."""

from __future__ import annotations

import os
import platform


def device_name(device: str) -> str:
    """The device with its model, as in ``cuda: NVIDIA H100``."""
    if device.startswith("cuda"):
        import torch

        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {platform.processor() or platform.machine()}"


def resolve_device(device: str) -> str:
    """``device`` itself, or for ``auto`` a GPU where there is one and the CPU otherwise."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
