"""The drifting head's field, and what its score is where that is known."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.head_config import DriftingHead as DriftingHeadConfig
from calm_bench.heads.drifting import DriftingHead
from calm_bench.heads.energy import energy_terms

N, M, P, Z = 6, 5, 7, 4


def head(*temperatures: float) -> DriftingHead:
    return DriftingHead(DriftingHeadConfig(num_blocks=1, noise_size=4, temperatures=temperatures), 8, Z)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def test_the_gradient_draws_samples_to_the_target_and_away_from_each_other() -> None:
    tau = 0.5 * Z**0.5
    samples, mean, log_std, noise = normal(N, P, Z), normal(P, Z, seed=1), normal(P, Z, seed=2), normal(M, P, Z, seed=3)
    samples.requires_grad_()
    fidelity, diversity = head(0.5).score(samples, mean, log_std, noise)
    (fidelity - diversity).sum().backward()
    x = samples.detach()
    y = mean + noise * log_std.exp()

    def pull(others: Tensor) -> Tensor:
        """k(x, y) e(y - x) for every x and y: [N, others, P, Z]."""
        difference = others.unsqueeze(0) - x.unsqueeze(1)
        distance = difference.norm(dim=-1, keepdim=True)
        return (-distance / tau).exp() * difference / distance.clamp_min(1e-9)

    field = pull(y).mean(1) - pull(x).sum(1) / (N - 1)
    assert samples.grad is not None
    torch.testing.assert_close(samples.grad, -2 * field / N, atol=1e-5, rtol=1e-4)


def test_long_temperatures_give_the_energy_score() -> None:
    data = normal(N, P, Z), normal(P, Z, seed=1), normal(P, Z, seed=2), normal(M, P, Z, seed=3)
    torch.testing.assert_close(head(1e3).score(*data), energy_terms(*data, alpha=1.0), rtol=5e-3, atol=0)


def test_the_field_vanishes_where_samples_are_distributed_as_targets() -> None:
    """One target for each position, drawn with the samples: the mean over many positions is zero, and only there."""
    positions, log_std = 40_000, torch.full((40_000, Z), -30.0)
    everything = normal(N + 1, positions, Z)
    for shift, vanishes in ((0.0, True), (0.3, False)):
        samples = (everything[:N] + shift).requires_grad_()
        fidelity, diversity = head(0.25, 1.0).score(samples, everything[N], log_std, torch.zeros(1, positions, Z))
        (fidelity - diversity).sum().backward()
        assert samples.grad is not None
        # Samples on one side of the first axis: where the field vanishes it does everywhere, not on the average alone.
        side = samples.detach()[..., 0] > shift
        pulls = N * samples.grad[side][:, 0]
        error = pulls.std() / (positions / 2) ** 0.5  # the samples of a position share its target
        assert (pulls.mean().abs() < 4 * error) == vanishes


def test_several_temperatures_are_averaged() -> None:
    data = normal(N, P, Z), normal(P, Z, seed=1), normal(P, Z, seed=2), normal(M, P, Z, seed=3)
    each = [head(temperature).score(*data)[0] for temperature in (0.25, 1.0)]
    torch.testing.assert_close(head(0.25, 1.0).score(*data)[0], (each[0] + each[1]) / 2)


def test_a_head_that_draws_other_positions_targets_scores_what_is_said() -> None:
    model = head(0.25)
    mean, log_std = 2 * normal(20_000, Z), 0.2 * normal(20_000, Z, seed=1)
    uniform, targets = model.noise(mean, Generator().manual_seed(2))
    said = model.compared(mean, log_std, (uniform, targets), None)["unconditional"]
    y, x, other = (
        (mean + normal(20_000, Z, seed=seed) * log_std.exp())[
            torch.randperm(20_000, generator=Generator().manual_seed(seed))
        ]
        for seed in (3, 4, 5)
    )
    score = 2 * model.measure((y - x).norm(dim=-1)).mean() - model.measure((x - other).norm(dim=-1)).mean()
    assert said.item() == pytest.approx(score.item(), rel=0.03)
