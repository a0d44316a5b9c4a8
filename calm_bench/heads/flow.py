"""The flow head: a velocity field from noise to data, integrated in a few steps (flow matching, arXiv 2210.02747)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from calm_bench.head_config import FlowHead as FlowHeadConfig
from calm_bench.heads.adaln import AdaLNNetwork
from calm_bench.heads.base import HeadNoise, PureHead
from calm_bench.heads.draws import normals, offsets, posterior, spread
from calm_bench.heads.noise import Noise

TIME_SCALE = 1000.0
"""Times run from 0 (noise) to 1 (data); the network reads them in the units of a diffusion's levels."""


class FlowHead(PureHead):
    """Learns v = x_1 - x_0 along x_t = (1 - t) x_0 + t x_1, from noise x_0 to a draw x_1 of the target's posterior."""

    draws_by_rows = True

    def __init__(self, config: FlowHeadConfig, hidden_size: int, latent_size: int) -> None:
        super().__init__()
        self.config, self.latent_size = config, latent_size
        self.network = AdaLNNetwork(config, hidden_size, latent_size, latent_size)

    def network_time(self, time: Tensor) -> Tensor:
        """A time in [0, 1] as the network reads it."""
        levels = self.config.time_levels
        return time * TIME_SCALE if levels is None else (time * levels).floor() * (TIME_SCALE / levels)

    def squared_errors(self, hidden: Tensor, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Mean over dimensions of |v - (data - noise)|^2: [P, d], [N, P, Z] twice, [N, P] -> [N, P]."""
        t = time.unsqueeze(-1)
        x = (1 - t) * noise + t * data
        output = self.network(x, self.network_time(time), hidden)
        velocity: Tensor = output + self.skip(time).unsqueeze(-1) * x
        return (velocity - (data - noise)).square().mean(dim=-1)

    def skip(self, time: Tensor) -> Tensor:
        """The part of the velocity that is linear in x, at a time in [0, 1]: the network learns the rest.

        For data of unit variance it is the best linear prediction of the velocity from x, so what is left to learn
        does not correlate with x (the reasoning of arXiv 2206.00364, section 5, for straight lines).
        """
        if not self.config.skip:
            return torch.zeros_like(time)
        return (2 * time - 1) / (time.square() + (1 - time).square())

    def noise(self, target_mean: Tensor, generator: Generator | None) -> HeadNoise:
        """Normals of the targets [N, P, Z], offsets of the times [P], and x_0 [N, P, Z]."""
        count = self.config.num_samples
        return (
            normals(count, target_mean, generator),
            offsets(target_mean, generator),
            normals(count, target_mean, generator),
        )

    def loss_given(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, noise: HeadNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        normal, offset, start = noise
        data = posterior(target_mean, target_log_std, normal)
        time = spread(self.config.num_samples, offset)
        loss = self.squared_errors(hidden, data, start, time).mean()
        return loss, {"velocity_error": loss.detach()}

    def sample_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        return self.integrate(hidden, noise.normal(self.latent_size)).to(hidden.dtype)

    def integrate(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Follow the velocity from noise x [S, ..., Z] at time 0 to time 1, for ``hidden`` [..., d]."""
        steps = self.config.num_steps
        substeps = 2 if self.config.solver == "midpoint" else 1
        grid = torch.arange(steps * substeps, device=x.device) / (steps * substeps)
        skips = self.skip(grid).unflatten(0, (steps, substeps))
        # All samples share the times, so each is embedded once a call.
        embedded = self.network.embed_times(self.network_time(grid)).unflatten(0, (steps, substeps))
        condition = self.network.embed_condition(hidden)
        for times, skip in zip(embedded, skips, strict=True):
            velocity = self.network.denoise(x, times[0], condition) + skip[0] * x
            if substeps == 2:
                middle = x + velocity / (2 * steps)
                velocity = self.network.denoise(middle, times[1], condition) + skip[1] * middle
            x = x + velocity / steps
        return x
