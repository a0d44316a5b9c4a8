"""The samplers with a perfect network, which for normal data is known in closed form, and with a slightly wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from calm_bench.head_config import DiffusionHead as DiffusionHeadConfig
from calm_bench.head_config import FlowHead as FlowHeadConfig
from calm_bench.head_config import ShortcutHead as ShortcutHeadConfig
from calm_bench.heads.diffusion import DiffusionHead
from calm_bench.heads.flow import FlowHead
from calm_bench.heads.schedule import clipped_cosine, spaced_times, steps_through, zero_terminal_cosine
from calm_bench.heads.shortcut import ShortcutHead

MEAN, STD = 0.7, 0.4
"""Of the data."""
HIDDEN = torch.zeros(1, 3)
MANY = 20_000


def samples_of(
    head: DiffusionHead | FlowHead, monkeypatch: pytest.MonkeyPatch, output: Callable[..., Tensor]
) -> Tensor:
    """What the sampler makes of a network that computes ``output(x, time)``."""
    monkeypatch.setattr(head.network, "embed_times", lambda time: time)
    monkeypatch.setattr(head.network, "embed_condition", lambda hidden: hidden)
    monkeypatch.setattr(head.network, "denoise", lambda x, time, condition: output(x, time))
    return head.sample(HIDDEN, MANY, torch.Generator().manual_seed(0))


def diffusion(error: float = 0.0, **settings: Any) -> tuple[DiffusionHead, Callable[..., Tensor]]:
    """A head of one latent dimension and its perfect network, plus a constant error in what the network predicts."""
    head = DiffusionHead(DiffusionHeadConfig(**settings), 3, 1)
    alpha_bar = (clipped_cosine() if head.learns_noise else zero_terminal_cosine()).float()

    def output(x: Tensor, time: Tensor) -> Tensor:
        signal, noise = alpha_bar[time].sqrt(), (1 - alpha_bar[time]).sqrt()
        variance = signal**2 * STD**2 + noise**2
        data = MEAN + signal * STD**2 / variance * (x - signal * MEAN)
        predicted = noise / variance * (x - signal * MEAN)
        if not head.learns_noise:
            return signal * predicted - noise * data + error
        # The variance in the middle of its bounds.
        return torch.cat([predicted + error, torch.zeros_like(x)], dim=-1)

    return head, output


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize(("objective", "start"), [("velocity", 0.0), ("noise", 0.0), ("noise", 0.05)])
def test_a_perfect_diffusion_network_gives_the_data(
    monkeypatch: pytest.MonkeyPatch, objective: str, start: float, sampler: str
) -> None:
    head, output = diffusion(objective=objective, start=start, sampler=sampler, num_steps=200)
    samples = samples_of(head, monkeypatch, output)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert samples.std().item() == pytest.approx(STD, rel=0.05)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("settings", [{"objective": "velocity"}, {"objective": "noise", "start": 0.05}])
def test_an_error_of_a_hundredth_moves_samples_little(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], sampler: str
) -> None:
    head, output = diffusion(error=0.01, sampler=sampler, num_steps=100, **settings)
    assert samples_of(head, monkeypatch, output).mean().item() == pytest.approx(MEAN, abs=0.05)


@pytest.mark.parametrize(
    ("objective", "start", "low", "high"),
    [("velocity", 0.0, 0.0, 0.05), ("noise", 0.05, 0.0, 1.0), ("noise", 0.0, 310, 320)],
    ids=["velocity", "noise from where there is signal", "noise as the reference"],
)
def test_how_the_first_step_multiplies_an_error(objective: str, start: float, low: float, high: float) -> None:
    head, _ = diffusion(objective=objective, start=start, num_steps=100)
    at = head._visited_steps.at(torch.tensor(-1))
    outputs = torch.zeros(2, head.network.final.out_proj.out_features)
    outputs[1] = 1.0
    moved, _ = head.reverse_step(at, torch.zeros(2, 1), outputs)
    assert low <= (moved[1] - moved[0]).abs().item() <= high


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("solver", "num_steps", "tolerance"), [("euler", 100, 0.05), ("midpoint", 20, 0.01)])
def test_a_perfect_flow_network_gives_the_data(
    monkeypatch: pytest.MonkeyPatch, solver: str, num_steps: int, tolerance: float, skip: bool
) -> None:
    head = FlowHead(FlowHeadConfig.model_validate({"solver": solver, "num_steps": num_steps, "skip": skip}), 3, 1)

    def output(x: Tensor, level: Tensor) -> Tensor:
        time = level / 1000
        variance = time**2 * STD**2 + (1 - time) ** 2
        slope = (time * STD**2 - (1 - time)) / variance
        return MEAN + slope * (x - time * MEAN) - head.skip(time) * x

    samples = samples_of(head, monkeypatch, output)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(STD, rel=tolerance, abs=0.003)


@pytest.mark.parametrize("num_steps", [1, 2, 8])
def test_what_a_shortcut_does_without_its_network_keeps_unit_normals(num_steps: int) -> None:
    """The linear part is the exact flow from unit normals to unit normals, in steps of any length."""
    head = ShortcutHead(ShortcutHeadConfig.model_validate({"num_steps": num_steps}), 3, 2)
    noise = torch.randn(5, 1, 2)
    torch.testing.assert_close(head.jump(HIDDEN, noise), noise)


def test_a_shortcuts_linear_part_agrees_with_its_halves() -> None:
    time, span = torch.rand(50) / 2, torch.rand(50) / 2
    x = torch.ones(50)
    whole = x + span * ShortcutHead.skip(time, span) * x
    middle = x + span / 2 * ShortcutHead.skip(time, span / 2) * x
    halves = middle + span / 2 * ShortcutHead.skip(time + span / 2, span / 2) * middle
    torch.testing.assert_close(halves, whole)
    instant = ShortcutHead.skip(time, torch.zeros(50))
    torch.testing.assert_close(ShortcutHead.skip(time, torch.full((50,), 1e-3)), instant, atol=5e-3, rtol=0)


def test_one_shortcut_is_learned_from_two_of_half_its_length() -> None:
    head = ShortcutHead(ShortcutHeadConfig(width=8), 3, 2)
    torch.nn.init.normal_(head.network.final.out_proj.weight)
    condition = head.network.embed_condition(HIDDEN)
    x, start, span = torch.randn(1, 1, 2), torch.tensor([[0.25]]), torch.tensor([[0.25]])
    half = span / 2
    first = head.direction(x, start, half, condition)
    second = head.direction(x + half.unsqueeze(-1) * first, start + half, half, condition)
    torch.testing.assert_close(head._two_halves(x, start, span, condition), (first + second) / 2)


def test_spaced_times_reach_both_ends() -> None:
    times = spaced_times(970, 25)
    assert (times[0], times[-1], len(times)) == (0, 970, 25)
    assert len(spaced_times(3, 100)) == 4


def test_zero_terminal_schedule_ends_in_pure_noise() -> None:
    steps = steps_through(zero_terminal_cosine())
    assert (steps.signal[-1], steps.noise[-1]) == (0, 1)
    assert steps.posterior_from_data.isfinite().all()
    assert steps.posterior_from_x.isfinite().all()
    assert steps.posterior_log_variance.isfinite().all()
