"""The heads that come with the package against the suite that every head must pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calm_bench.head_config import (
    DiffusionHead,
    DriftingHead,
    EnergyHead,
    FlowHead,
    HeadConfig,
    MeanFlowHead,
    ShortcutHead,
)
from calm_bench.heads import HEADS
from calm_bench.testing.head_conformance import HeadConformance


class TestEnergy(HeadConformance):
    config = EnergyHead(width=14, noise_size=5, num_samples=6, num_targets=11)
    # The closed form takes a gradient for the noise too.
    flops_tolerance = 0.02


class TestDrifting(HeadConformance):
    config = DriftingHead(width=14, noise_size=5, num_samples=6, num_targets=11)
    flops_tolerance = 0.02


class TestDiffusion(HeadConformance):
    config = DiffusionHead(width=14, num_samples=6, time_features=16, num_steps=20)


class TestDiffusionDdim(HeadConformance):
    config = DiffusionHead(width=14, num_samples=6, time_features=16, sampler="ddim", num_steps=20)


class TestDiffusionOfNoise(HeadConformance):
    """The reference's objective, sampled from where there is a signal."""

    config = DiffusionHead(
        width=14, num_samples=6, time_features=16, objective="noise", start=0.05, sampler="ddim", num_steps=50
    )


class TestFlow(HeadConformance):
    config = FlowHead(width=14, num_samples=6, time_features=16)


class TestFlowEuler(HeadConformance):
    config = FlowHead(width=14, num_samples=6, time_features=16, solver="euler", num_steps=8)


class TestFlowAsTheReference(HeadConformance):
    config = FlowHead(width=14, num_samples=6, time_features=16, num_steps=10, time_levels=1000, skip=False)


class TestShortcut(HeadConformance):
    config = ShortcutHead(width=14, num_samples=6, time_features=16)


class TestShortcutInFourSteps(HeadConformance):
    config = ShortcutHead(width=14, num_samples=6, time_features=16, num_steps=4)


class TestMeanFlow(HeadConformance):
    # Fewer time features leave too few that change over a jump.
    config = MeanFlowHead(width=14, num_samples=6, time_features=64, num_jumps=2)
    toy_distance = 0.03


class TestMeanFlowInTwoSteps(HeadConformance):
    config = MeanFlowHead(width=14, num_samples=6, time_features=64, num_jumps=2, num_steps=2)
    toy_distance = 0.03


@pytest.mark.parametrize(
    "head", [DiffusionHead(), DiffusionHead(sampler="ddim"), FlowHead(), ShortcutHead(), MeanFlowHead()]
)
def test_rows_with_generators_of_their_own_share_one_pass(head: HeadConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    built = HEADS.get(head.kind)(head, 6, 4)  # type: ignore[call-arg]
    rows: list[int] = []
    denoise = built.network.denoise

    def counted(x: Tensor, *rest: Tensor) -> Tensor:
        rows.append(x.shape[1])
        return denoise(x, *rest)

    monkeypatch.setattr(built.network, "denoise", counted)
    built.sample(torch.zeros(6), 2, torch.Generator())
    alone = len(rows)
    built.sample_rows(torch.zeros(9, 6), 2, [torch.Generator() for _ in range(9)])
    assert rows[alone:] == [9] * alone
