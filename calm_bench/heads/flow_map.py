"""Heads that learn how far the flow from noise to data goes in one step of any length.

Shape legend: S samples, Z latent size, w width of the head, d hidden size of the backbone.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from calm_bench.head_config import NetworkHead
from calm_bench.heads.adaln import AdaLNNetwork
from calm_bench.heads.base import PureHead
from calm_bench.heads.noise import Noise


def variance(time: Tensor) -> Tensor:
    """Variance of x_t, for data of unit variance."""
    return time.square() + (1 - time).square()


class FlowMapHead(PureHead):
    """s(x_t, t, h), with x_t + h s the point that the flow reaches h later; 0 is noise, 1 is data.

    At h = 0 that is the velocity; what trains longer steps is the affair of the heads that inherit.
    """

    draws_by_rows = True
    time_scale = 1000.0
    """Times and spans run from 0 to 1; the network reads them in these units, by default a diffusion's levels."""

    def __init__(self, config: NetworkHead, num_steps: int, hidden_size: int, latent_size: int) -> None:
        """Args: ``num_steps``, network passes per sample."""
        super().__init__()
        self.num_steps, self.latent_size = num_steps, latent_size
        self.network = AdaLNNetwork(config, hidden_size, latent_size, latent_size, num_times=2)

    def direction(self, x: Tensor, time: Tensor, span: Tensor, condition: Tensor) -> Tensor:
        """s(x, time, span): [..., Z], [...], [...], embedded condition [..., w] -> [..., Z] in fp32."""
        embedded = self.network.embed_times(time * self.time_scale, span * self.time_scale)
        return self.network.denoise(x, embedded, condition) + self.skip(time, span).unsqueeze(-1) * x

    def squared_errors(
        self, hidden: Tensor, data: Tensor, noise: Tensor, time: Tensor, start: Tensor, span: Tensor
    ) -> Tensor:
        """Mean squared errors over dimensions, of velocities and then of long steps.

        Args:
            hidden: [P, d].
            data: [N, P, Z], and ``noise``.
            time: [N - n, P] of the velocities.
            start: [n, P] of the long steps, with ``span`` > 0.

        Returns:
            [N, P].
        """
        condition = self.network.embed_condition(hidden)
        times, spans = torch.cat([time, start]), torch.cat([torch.zeros_like(time), span])
        straight = data - noise
        x = noise + times.unsqueeze(-1) * straight
        direction, short = self.direction(x, times, spans, condition), len(time)
        steps = self.step_errors(direction[short:], x[short:], straight[short:], start, span, condition)
        return torch.cat([direction[:short] - straight[:short], steps]).square().mean(dim=-1)

    @abstractmethod
    def step_errors(
        self, direction: Tensor, x: Tensor, straight: Tensor, start: Tensor, span: Tensor, condition: Tensor
    ) -> Tensor:
        """What the directions of long steps miss their targets by: [n, P, Z].

        Args:
            direction: [n, P, Z], s(x, start, span).
            x: [n, P, Z], where the steps begin.
            straight: [n, P, Z], data minus noise.
            start: [n, P], with ``span``.
            condition: embedded, [P, w].
        """

    @staticmethod
    def skip(time: Tensor, span: Tensor) -> Tensor:
        """The part of the direction that is linear in x: what it would be if the data were unit normals.

        The network learns the rest and need not copy x. At span 0 this is the flow head's.
        """
        here = variance(time)
        stretched = ((variance(time + span) / here).sqrt() - 1) / span.clamp_min(2**-20)
        return torch.where(span > 0, stretched, (2 * time - 1) / here)

    def sample_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        return self.jump(hidden, noise.normal(self.latent_size)).to(hidden.dtype)

    def jump(self, hidden: Tensor, x: Tensor) -> Tensor:
        """From noise x [S, ..., Z] to latents in equal steps, for ``hidden`` [..., d]."""
        steps = self.num_steps
        grid = torch.arange(steps, device=x.device) / steps
        spans = torch.full_like(grid, 1 / steps)
        embedded = self.network.embed_times(grid * self.time_scale, spans * self.time_scale)
        condition = self.network.embed_condition(hidden)
        for step, skip in zip(embedded, self.skip(grid, spans), strict=True):
            x = x + (self.network.denoise(x, step, condition) + skip * x) / steps
        return x
