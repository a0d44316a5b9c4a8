"""The mean-flow head: average velocities between any two times, so that one pass can go from noise to data.

Geng et al., arXiv 2505.13447, with the regression of their improved mean flows, arXiv 2512.02012.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from calm_bench.head_config import MeanFlowHead as MeanFlowHeadConfig
from calm_bench.heads.base import HeadNoise
from calm_bench.heads.draws import normals, offsets, posterior, spread
from calm_bench.heads.flow_map import FlowMapHead

STEP = 2.0**-9
"""Of the central difference: its own error, and that of rounding in fp32, are some thousandths of the derivative."""


class MeanFlowHead(FlowMapHead):
    """Learns the average velocity s of the flow from t to t + h: h s is the integral of the velocity v.

    Differentiated by t along the flow, with t + h fixed, that says ``v = s - h ds/dt``. The right side, its derivative
    without a gradient, is regressed on ``x_1 - x_0``, whose mean given x_t is v: a target that does not depend on the
    network. The derivative follows the network's own velocity ``s(x_t, t, 0)``, not ``x_1 - x_0`` as in the first
    paper, where the regression's target was noisy through it (2512.02012, equations 10 to 12).

    The papers draw both ends of a jump. Here every jump goes to the end of the sampling step that it begins in: others
    would never be made, and a small budget of training is better spent on these.
    """

    time_scale = 16.0
    """The derivative by t is as large as the units of t: in those of a diffusion's levels its noise would be most of
    what is learned. On the toy distribution of the conformance suite, 64 leaves eight times the distance of 16."""

    def __init__(self, config: MeanFlowHeadConfig, hidden_size: int, latent_size: int) -> None:
        super().__init__(config, config.num_steps, hidden_size, latent_size)
        self.config = config

    def noise(self, target_mean: Tensor, generator: Generator | None) -> HeadNoise:
        """Normals of the targets [N, P, Z], x_0 [N, P, Z], and offsets of the times of velocities and of jumps [P]."""
        return (
            normals(self.config.num_samples, target_mean, generator),
            normals(self.config.num_samples, target_mean, generator),
            offsets(target_mean, generator),
            offsets(target_mean, generator),
        )

    def loss_given(
        self, hidden: Tensor, target_mean: Tensor, target_log_std: Tensor, noise: HeadNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        normal, start, offset, jump_offset = noise
        data = posterior(target_mean, target_log_std, normal)
        own = spread(self.config.num_samples - self.config.num_jumps, offset)
        begin = spread(self.config.num_jumps, jump_offset)
        end = ((begin * self.num_steps).floor() + 1) / self.num_steps
        errors = self.squared_errors(hidden, data, start, own, begin, (end - begin).clamp_min(2 * STEP))
        terms = {"velocity_error": errors[: len(own)].mean(), "jump_error": errors[len(own) :].mean()}
        return errors.mean(), {name: term.detach() for name, term in terms.items()}

    def step_errors(
        self, direction: Tensor, x: Tensor, straight: Tensor, start: Tensor, span: Tensor, condition: Tensor
    ) -> Tensor:
        return direction - span.unsqueeze(-1) * self.change(x, start, span, condition) - straight

    @torch.no_grad()
    def change(self, x: Tensor, start: Tensor, span: Tensor, condition: Tensor) -> Tensor:
        """ds/dt along the flow where its end t + h stays, by a central difference in fp32.

        It takes two passes. ``torch.func.jvp`` takes three, since it multiplies by zeros in place of the weights'
        tangents, and does not compile.

        Args:
            x: [n, P, Z] at times ``start`` [n, P].
            span: [n, P], at least twice :data:`STEP`.
            condition: embedded, [P, w].

        Returns:
            [n, P, Z] in fp32.
        """
        with torch.autocast(device_type=x.device.type, enabled=False):
            condition = condition.float()
            moved = STEP * self.direction(x, start, torch.zeros_like(span), condition)
            after = self.direction(x + moved, start + STEP, span - STEP, condition)
            before = self.direction(x - moved, start - STEP, span + STEP, condition)
        return (after - before) / (2 * STEP)
