"""Two peaks in two dimensions, from one target at a time: better than what any normal distribution can do."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.head_config import DriftingHead, HeadConfig, MeanFlowHead
from calm_bench.heads import HEADS

PEAKS = torch.tensor([[1.0, 1.0], [-1.0, -0.5]])
STD = 0.2


def draws(count: int, generator: Generator) -> Tensor:
    """Centres of the peaks, of weights 0.7 and 0.3: [count, 2]."""
    return PEAKS[(torch.rand(count, generator=generator) < 0.3).long()]


def energy_distance(x: Tensor, y: Tensor) -> float:
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


@pytest.mark.parametrize("config", [DriftingHead(width=32, noise_size=8, num_targets=4), MeanFlowHead(width=32)])
def test_two_peaks_are_learned(config: HeadConfig) -> None:
    generator = Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = HEADS.get(config.kind)(config, 4, 2)  # type: ignore[call-arg]
    optimizer = torch.optim.Adam(head.parameters(), 5e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    hidden = torch.ones(1, 4)
    for _ in range(300):
        mean = draws(64, generator)
        loss, _ = head.loss(hidden.expand(64, 4), mean, torch.full_like(mean, STD).log(), generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        samples = head.sample(hidden, 1000, generator).squeeze(1)
    truth = draws(1000, generator) + STD * torch.randn(1000, 2, generator=generator)
    scale = torch.linalg.cholesky(truth.T.cov())
    normal = truth.mean(0) + torch.randn(1000, 2, generator=generator) @ scale.T
    assert energy_distance(samples, truth) < energy_distance(normal, truth) / 2
    near = torch.cdist(samples, PEAKS).argmin(1)
    assert near.float().mean().item() == pytest.approx(0.3, abs=0.1)
