"""What is watched of an energy head: known values for samples made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from calm_bench.head_config import EnergyHead as EnergyHeadConfig
from calm_bench.heads.energy import EnergyHead
from calm_bench.heads.monitors import COLLAPSED_BELOW, collapsed_share, unconditional_score

N, P, Z = 8, 400, 32


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def test_collapsed_is_the_share_of_pairs_closer_than_the_threshold() -> None:
    log_std = 0.3 * normal(P, Z)
    assert collapsed_share(normal(N, P, Z), log_std) == 0
    assert collapsed_share(normal(1, P, Z).expand(N, P, Z), log_std) == 1
    # Three samples in four positions of ten coincide.
    samples = normal(N, P, Z)
    samples[:, : P * 2 // 5] = samples[:1, : P * 2 // 5]
    assert collapsed_share(samples, log_std) == pytest.approx(0.4)
    # An odd sample has no partner.
    assert collapsed_share(samples[:5], log_std) == pytest.approx(0.4)


@pytest.mark.parametrize(("factor", "expected"), [(0.99, 1.0), (1.01, 0.0)])
def test_near_is_measured_by_the_width_of_the_posterior(factor: float, expected: float) -> None:
    log_std = torch.full((P, Z), -2.0)
    width = (Z * torch.tensor(-4.0).exp()).sqrt()
    samples = torch.zeros(2, P, Z)
    samples[1, :, 0] = factor * COLLAPSED_BELOW * width
    assert collapsed_share(samples, log_std) == expected


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_a_head_that_draws_other_positions_targets_scores_what_is_said(alpha: float) -> None:
    mean, log_std = 2 * normal(20_000, 4), 0.2 * normal(20_000, 4, seed=1)
    said = unconditional_score(mean, log_std, normal(20_000, 4, seed=2), lambda d: d**alpha)
    y, x, other = (
        (mean + normal(20_000, 4, seed=seed) * log_std.exp())[
            torch.randperm(20_000, generator=Generator().manual_seed(seed))
        ]
        for seed in (3, 4, 5)
    )
    score = 2 * (y - x).norm(dim=-1).pow(alpha).mean() - (x - other).norm(dim=-1).pow(alpha).mean()
    assert said == pytest.approx(score.item(), rel=0.03)


def test_the_head_tells_both_without_gradient_and_draws_nothing_more() -> None:
    head = EnergyHead(EnergyHeadConfig(num_blocks=1, noise_size=4, num_targets=4), 8, Z)
    generator = Generator().manual_seed(0)
    _, terms = head.loss(normal(P, 8), normal(P, Z), normal(P, Z), generator)
    # The head starts with every sample at the origin.
    assert terms["collapsed"] == 1
    assert not any(term.requires_grad for term in terms.values())
    reference = Generator().manual_seed(0)
    torch.rand((8, P, 4), generator=reference)
    torch.randn((4, P, Z), generator=reference)
    assert torch.equal(generator.get_state(), reference.get_state())
