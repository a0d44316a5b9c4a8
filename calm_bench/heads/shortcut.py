"""The shortcut head: one network for steps of every length, so that one pass can go from noise to data.

Frans et al., arXiv 2410.12557.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor

from calm_bench.head_config import ShortcutHead as ShortcutHeadConfig
from calm_bench.heads.base import HeadNoise
from calm_bench.heads.draws import normals, offsets, posterior, spread
from calm_bench.heads.flow_map import FlowMapHead
from calm_bench.row_noise import draw


class ShortcutHead(FlowMapHead):
    """Learns the velocity, h = 0, by flow matching. A longer step, of 1, 1/2, 1/4, ..., must agree with two of half
    its length, which the network itself makes; the shortest two are made with the velocity.
    """

    def __init__(self, config: ShortcutHeadConfig, hidden_size: int, latent_size: int) -> None:
        super().__init__(config, config.num_steps, hidden_size, latent_size)
        self.config = config

    def noise(self, target_mean: Tensor, generator: Generator | None) -> HeadNoise:
        """Normals of the targets [N, P, Z], x_0 [N, P, Z], offsets of the times [P], and of the shortcuts, each
        [n, P]: how often their length is halved, and uniforms for their starts."""
        config, device = self.config, target_mean.device
        positions = (config.num_shortcuts, *target_mean.shape[:-1])
        return (
            normals(config.num_samples, target_mean, generator),
            normals(config.num_samples, target_mean, generator),
            offsets(target_mean, generator),
            draw(partial(torch.randint, config.num_halvings), positions, 1, generator, device),
            draw(torch.rand, positions, 1, generator, device),
        )

    def loss_given(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, noise: HeadNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        normal, start_noise, offset, level, uniform = noise
        data = posterior(target_mean, target_log_std, normal)
        time = spread(self.config.num_samples - self.config.num_shortcuts, offset)
        span = torch.exp2(-level.float())
        # A step of length h starts at a multiple of h.
        start = (uniform / span).floor() * span
        errors = self.squared_errors(hidden, data, start_noise, time, start, span)
        flow, shortcut = errors.split([len(time), len(start)])
        terms = {"velocity_error": flow.detach().mean(), "shortcut_error": shortcut.detach().mean()}
        return errors.mean(), terms

    def step_errors(
        self, direction: Tensor, x: Tensor, straight: Tensor, start: Tensor, span: Tensor, condition: Tensor
    ) -> Tensor:
        with torch.no_grad():
            target = self._two_halves(x, start, span, condition)
        return direction - target

    def _two_halves(self, x: Tensor, start: Tensor, span: Tensor, condition: Tensor) -> Tensor:
        half = span / 2
        shortest = 0.5**self.config.num_halvings
        given = torch.where(half > shortest, half, 0.0)
        first = self.direction(x, start, given, condition)
        second = self.direction(x + half.unsqueeze(-1) * first, start + half, given, condition)
        return (first + second) / 2
