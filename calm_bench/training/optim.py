"""Optimizer, learning-rate schedule and the length of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from calm_bench.config import Training


def build_optimizer(parameters: Iterable[tuple[str, nn.Parameter]], config: Training) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: decaying norms and biases would pull scales to zero."""
    named = list(parameters)
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: Training, step: int, total_steps: int) -> float:
    """Learning rate of ``step`` (counted from 0): linear warm-up, then the schedule down to its final fraction."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1 - progress
    return config.learning_rate * (config.final_learning_rate + (1 - config.final_learning_rate) * remaining)
