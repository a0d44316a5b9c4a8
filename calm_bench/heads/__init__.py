"""Generative heads: from a hidden state to samples of the next latent."""

from __future__ import annotations

from calm_bench.heads.base import Head, NoiseHead
from calm_bench.registry import Registry

HEADS: Registry[type[Head]] = Registry(
    "heads",
    {
        "energy": "calm_bench.heads.energy:EnergyHead",
        "drifting": "calm_bench.heads.drifting:DriftingHead",
        "diffusion": "calm_bench.heads.diffusion:DiffusionHead",
        "flow": "calm_bench.heads.flow:FlowHead",
        "shortcut": "calm_bench.heads.shortcut:ShortcutHead",
        "mean_flow": "calm_bench.heads.mean_flow:MeanFlowHead",
        "custom": "calm_bench.heads.custom:CustomHead",
    },
    one="head",
)

__all__ = ["HEADS", "Head", "NoiseHead"]
