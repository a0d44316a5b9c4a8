"""Random draws that the heads share; always fp32, since bf16 has 256 values between one power of two and the next."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from calm_bench.row_noise import draw


def spread_uniforms(num_samples: int, like: Tensor, generator: Generator | None) -> Tensor:
    """Uniforms in [0, 1) that are spread evenly over each position's samples: [N, P] for ``like`` [P, ...].

    Sample n falls into the n-th of N equal intervals. Each expectation over one uniform is unchanged, the average over
    a position's N samples varies less than with independent ones (Kingma et al., arXiv 2107.00630, appendix I.1).
    """
    offset = draw(torch.rand, like.shape[:-1], 0, generator, like.device)
    index = torch.arange(num_samples, device=like.device).view(-1, *[1] * offset.dim())
    # Rounding must not reach 1, which is no time of any schedule.
    return ((index + offset) / num_samples).clamp_max(1 - 2**-24)


def posterior_draws(num_samples: int, mean: Tensor, log_std: Tensor, generator: Generator | None) -> Tensor:
    """Latents of the target chunk, N draws of its posterior: [N, P, Z] in fp32."""
    noise = draw(torch.randn, (num_samples, *mean.shape), 1, generator, mean.device)
    return mean.float() + noise * log_std.float().exp()


def normals_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Standard normals of the shape of ``x`` [N, P, Z], in fp32."""
    return draw(torch.randn, x.shape, 1, generator, x.device)
