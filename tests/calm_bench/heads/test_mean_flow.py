"""The mean-flow head's derivative, and its identity where the flow is known: data that are normal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import jvp

from calm_bench.head_config import MeanFlowHead as MeanFlowHeadConfig
from calm_bench.heads.mean_flow import MeanFlowHead

MEAN, STD = 0.7, 0.4
N, P, D, Z = 2, 500, 6, 3


def head(**settings: object) -> MeanFlowHead:
    torch.manual_seed(0)
    built = MeanFlowHead(MeanFlowHeadConfig.model_validate({"width": 16, **settings}), D, Z)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return built


def jumps() -> tuple[Tensor, Tensor, Tensor]:
    """x [N, P, Z], starts and spans [N, P]."""
    torch.manual_seed(1)
    start = 0.9 * torch.rand(N, P)
    return torch.randn(N, P, Z), start, 0.05 + (0.9 - start) * torch.rand(N, P)


def average_velocity(x: Tensor, time: Tensor, span: Tensor, condition: Tensor) -> Tensor:
    """Of the flow from unit normals to normals of MEAN and STD, in closed form."""

    def std(at: Tensor) -> Tensor:
        return ((1 - at).square() + (at * STD).square()).sqrt()

    t, h = time.unsqueeze(-1), span.unsqueeze(-1)
    centred = x - t * MEAN
    slope = (t * STD**2 - (1 - t)) / std(t).square()
    over_a_span = MEAN + (std(t + h) / std(t) - 1) * centred / h.clamp_min(1e-9)
    return torch.where(h > 0, over_a_span, MEAN + slope * centred)


def test_the_derivative_is_that_of_automatic_differentiation() -> None:
    model, (x, start, span) = head(), jumps()
    condition = model.network.embed_condition(torch.randn(P, D)).detach()
    velocity = model.direction(x, start, torch.zeros_like(span), condition)
    tangents = (velocity, torch.ones_like(start), -torch.ones_like(span))
    _, exact = jvp(lambda x, t, h: model.direction(x, t, h, condition), (x, start, span), tangents)
    ours = model.change(x, start, span, condition)
    assert (ours - exact).abs().mean() < 2e-3 * exact.abs().mean()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.change(x, start, span, condition), ours)


def test_the_identity_gives_the_velocity(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, start, span) = head(), jumps()
    monkeypatch.setattr(model, "direction", average_velocity)
    condition = torch.zeros(P, D)
    average = average_velocity(x, start, span, condition)
    # The mean, over all data behind x, of data minus noise.
    velocity = average_velocity(x, start, torch.zeros_like(span), condition)
    errors = model.step_errors(average, x, velocity, start, span, condition)
    torch.testing.assert_close(errors, torch.zeros_like(errors), atol=1e-2, rtol=0)
    assert (average - velocity).abs().mean() > 0.1


def test_nothing_is_learned_through_the_derivative() -> None:
    model, (x, start, span) = head(), jumps()
    hidden = torch.randn(P, D, requires_grad=True)
    assert not model.change(x, start, span, model.network.embed_condition(hidden)).requires_grad


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_known_average_velocity_jumps_to_the_data(monkeypatch: pytest.MonkeyPatch, num_steps: int) -> None:
    model = head(num_steps=num_steps)
    monkeypatch.setattr(
        model.network, "embed_times", lambda time, span: torch.stack([time, span], -1) / model.time_scale
    )

    def denoise(x: Tensor, times: Tensor, condition: Tensor) -> Tensor:
        time, span = times
        return average_velocity(x, time, span, condition) - model.skip(time, span) * x

    monkeypatch.setattr(model.network, "denoise", denoise)
    samples = model.sample(torch.zeros(1, D), 20_000, torch.Generator().manual_seed(0))
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert samples.std().item() == pytest.approx(STD, rel=0.02)
