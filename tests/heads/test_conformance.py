"""The heads that come with the package against the suite that every head must pass."""

from __future__ import annotations

from conformance import HeadConformance

from calm_bench.head_config import DiffusionHead, EnergyHead, FlowHead, ShortcutHead


class TestEnergy(HeadConformance):
    config = EnergyHead(width=14, noise_size=5, num_samples=6, num_targets=11)
    # The closed form takes a gradient for the noise too.
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
