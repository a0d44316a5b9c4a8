"""What to watch while an energy head trains: whether its samples coincide, and whether it uses its context."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

COLLAPSED_BELOW = 0.1
"""Two samples nearly coincide when closer than this share of the target posterior's width; two draws from the
posterior itself are about 1.4 widths apart."""


@torch.no_grad()
def collapsed_share(samples: Tensor, log_std: Tensor) -> Tensor:
    """Share of pairs of model samples that nearly coincide: 1 for a head that ignores its noise.

    Only the pairs (1, 2), (3, 4), ... are looked at: samples are exchangeable, so these estimate the share of all
    pairs without bias, for a seventh of the work at N = 8.

    Args:
        samples: [N, P, Z], N >= 2.
        log_std: [P, Z] of the target's posterior; its width is the root of the summed variances.

    Returns:
        Scalar in [0, 1].
    """
    even = len(samples) // 2 * 2
    squared = (samples[0:even:2].float() - samples[1:even:2].float()).square().sum(-1)
    width_squared = (2 * log_std.float()).exp().sum(-1)
    return (squared < COLLAPSED_BELOW**2 * width_squared).float().mean()


@torch.no_grad()
def unconditional_score(mean: Tensor, log_std: Tensor, normal: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """What the loss would be if the head drew targets of other positions: the best that ignores its context.

    For such a head fidelity is 2 E f(|y - y'|) and diversity E f(|y - y'|), over targets y and y' of two positions, so
    the score is E f(|y - y'|); in the energy score f is the distance or its power. Positions are paired half a batch
    apart, which is another sequence where there are several.

    Args:
        mean: [P, Z] of the target posteriors, with ``log_std`` [P, Z].
        normal: [P, Z] draws of N(0, 1).
        measure: f, elementwise.

    Returns:
        Scalar.
    """
    targets = mean.float() + normal.float() * log_std.float().exp()
    distances = torch.linalg.vector_norm(targets - targets.roll(len(targets) // 2, 0), dim=-1)
    return measure(distances).mean()
