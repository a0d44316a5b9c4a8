"""The energy score and its head: closed forms, gradients, memory, and a toy distribution learned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from calm_bench.head_config import EnergyHead as EnergyHeadConfig
from calm_bench.heads.energy import EnergyHead, energy_terms

N, M, P, Z = 5, 30, 7, 6


def draws() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(N, P, Z, generator=generator)
    mean, log_std = torch.randn(P, Z, generator=generator), 0.3 * torch.randn(P, Z, generator=generator)
    return samples, mean, log_std, torch.randn(M, P, Z, generator=generator)


def plain(samples: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor, alpha: float) -> Tensor:
    """Equation 11 as written, with all differences in memory."""
    targets = mean + noise * log_std.exp()
    fidelity = (samples[:, None] - targets[None]).norm(dim=-1).pow(alpha).mean(dim=(0, 1))
    pairs = [(i, j) for i in range(N) for j in range(N) if i != j]
    diversity = torch.stack([(samples[i] - samples[j]).norm(dim=-1).pow(alpha) for i, j in pairs]).mean(0)
    return 2 * fidelity - diversity


@pytest.mark.parametrize("alpha", [0.5, 0.75, 1.0, 1.5, 1.99])
def test_value_and_gradient_of_the_plain_formula(alpha: float) -> None:
    samples, *target = draws()
    ours, theirs = samples.clone().requires_grad_(), samples.clone().requires_grad_()
    fidelity, diversity = energy_terms(ours, *target, alpha)
    expected = plain(theirs, *target, alpha)
    torch.testing.assert_close(fidelity - diversity, expected, atol=1e-5, rtol=1e-5)
    (fidelity - diversity).sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
def test_gradients_stay_finite_where_all_samples_coincide(alpha: float) -> None:
    _, *target = draws()
    samples = torch.zeros(N, P, Z, requires_grad=True)
    fidelity, diversity = energy_terms(samples, *target, alpha)
    (fidelity - diversity).sum().backward()
    assert samples.grad is not None
    assert samples.grad.isfinite().all()


def test_order_of_samples_and_positions_does_not_matter() -> None:
    samples, mean, log_std, noise = draws()
    order, positions = torch.randperm(N), torch.randperm(P)
    fidelity, diversity = energy_terms(samples, mean, log_std, noise, 1.0)
    shuffled = energy_terms(samples[order][:, positions], mean[positions], log_std[positions], noise[:, positions], 1.0)
    torch.testing.assert_close(shuffled[0], fidelity[positions])
    torch.testing.assert_close(shuffled[1], diversity[positions])


def test_no_tensor_of_all_differences_is_built() -> None:
    largest = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    samples, mean, log_std, noise = draws()
    with Watch():
        energy_terms(samples, mean, log_std, noise, 1.0)
    assert largest < N * M * P * Z / 4


def test_the_score_is_proper() -> None:
    """Among normal models of one target, the target itself has the lowest expected loss."""
    generator = torch.Generator().manual_seed(1)
    mean, log_std = torch.zeros(1, Z), torch.zeros(1, Z)
    losses = {}
    for shift, scale in [(0.0, 1.0), (0.5, 1.0), (0.0, 0.5), (0.0, 2.0)]:
        totals = []
        for _ in range(40):
            samples = shift + scale * torch.randn(64, 1, Z, generator=generator)
            fidelity, diversity = energy_terms(samples, mean, log_std, torch.randn(64, 1, Z, generator=generator), 1.0)
            totals.append(float(fidelity - diversity))
        losses[shift, scale] = sum(totals) / len(totals)
    assert min(losses, key=lambda key: losses[key]) == (0.0, 1.0)


def head(**settings: object) -> EnergyHead:
    torch.manual_seed(0)
    return EnergyHead(EnergyHeadConfig.model_validate({"num_blocks": 2, "noise_size": 8, **settings}), 16, 3)


def test_first_samples_are_the_origin_and_its_loss_still_moves_it() -> None:
    model = head()
    hidden = torch.randn(4, 16)
    assert torch.equal(model.sample(hidden, 3), torch.zeros(3, 4, 3))
    loss, terms = model.loss(hidden, torch.ones(4, 3), torch.zeros(4, 3))
    loss.backward()
    assert terms["diversity"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.final.out_proj.bias.grad is not None
    assert model.final.out_proj.bias.grad.abs().min() > 0


def test_the_condition_is_computed_once_but_counts_as_a_concatenation() -> None:
    model = head(width=12)
    torch.nn.init.normal_(model.final.out_proj.weight)
    block = model.blocks[0]
    x, condition = torch.randn(5, 4, 12), torch.randn(4, 12)
    first = block.in_proj(torch.cat([block.norm(x), condition.expand(5, 4, 12)], dim=-1))
    ours = torch.nn.functional.linear(block.norm(x), block.in_proj.weight[:, :12]) + block.condition(condition)
    torch.testing.assert_close(ours, first)


def test_a_bimodal_target_is_learned() -> None:
    """Two condition values, each its own pair of modes: mean, spread and the gap between modes come out."""
    torch.manual_seed(0)
    model = EnergyHead(EnergyHeadConfig(num_blocks=2, noise_size=8, num_samples=8, num_targets=1), 16, 1)
    hidden = torch.randn(2, 16)
    centres = torch.tensor([[1.0], [-2.0]])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        which = torch.randint(2, (128,), generator=generator)
        side = torch.randint(2, (128, 1), generator=generator) * 2.0 - 1
        target = centres[which] + 0.5 * side
        loss, _ = model.loss(hidden[which], target, torch.full_like(target, math.log(0.05)), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    samples = model.sample(hidden, 4000, torch.Generator().manual_seed(5)).squeeze(-1).detach()
    for row, centre in enumerate(centres.flatten().tolist()):
        drawn = samples[:, row] - centre
        truth = torch.cat([torch.full((2000,), -0.5), torch.full((2000,), 0.5)])
        truth = truth + 0.05 * torch.randn(4000, generator=torch.Generator().manual_seed(6))
        sorted_gap = (drawn.sort().values - truth.sort().values).abs().mean()
        assert sorted_gap < 0.12  # Wasserstein distance; the modes are 1 apart
