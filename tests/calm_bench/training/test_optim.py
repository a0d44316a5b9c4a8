"""Learning-rate schedules and weight decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from calm_bench.config import Training
from calm_bench.training.optim import build_optimizer, learning_rate


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_warm_up_rises_even_with_a_constant_schedule(schedule: str) -> None:
    config = Training(num_steps=100, learning_rate=1.0, warmup_steps=10, schedule=schedule, final_learning_rate=0.1)
    rates = [learning_rate(config, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_shorter_than_its_warm_up_stays_below_the_peak() -> None:
    config = Training(num_steps=5, learning_rate=1.0, warmup_steps=10)
    assert max(learning_rate(config, step, 5) for step in range(5)) < 0.5


def test_a_step_is_one_kernel_for_all_weights() -> None:
    optimizer = build_optimizer(nn.Linear(3, 3).named_parameters(), Training(num_steps=1))
    assert all(group["fused"] for group in optimizer.param_groups)


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    optimizer = build_optimizer(module.named_parameters(), Training(num_steps=1, learning_rate=0.1, weight_decay=0.5))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer.step()
    for name, parameter in module.named_parameters():
        factor = 1 - 0.1 * 0.5 if parameter.ndim == 2 else 1
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
