"""Random draws that the heads share; always fp32, since bf16 has 256 values between one power of two and the next.

Shape letters: N samples of a position, P positions, Z latent size.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from calm_bench.row_noise import draw


def offsets(like: Tensor, generator: Generator | None) -> Tensor:
    """A uniform in [0, 1) of each position, for :func:`spread`: [P] for ``like`` [P, ...]."""
    return draw(torch.rand, like.shape[:-1], 0, generator, like.device)


def spread(num_samples: int, offset: Tensor) -> Tensor:
    """Uniforms in [0, 1) that are spread evenly over each position's samples: [N, P] from independent ones [P].

    Sample n falls into the n-th of N equal intervals. Each expectation over one uniform is unchanged, the average over
    a position's N samples varies less than with independent ones (Kingma et al., arXiv 2107.00630, appendix I.1).
    """
    index = torch.arange(num_samples, device=offset.device).view(-1, *[1] * offset.dim())
    # Rounding must not reach 1, which is no time of any schedule.
    return ((index + offset) / num_samples).clamp_max(1 - 2**-24)


def normals(num_samples: int, like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normals: [N, P, Z] for ``like`` [P, Z]."""
    return draw(torch.randn, (num_samples, *like.shape), 1, generator, like.device)


def posterior(mean: Tensor, log_std: Tensor, normal: Tensor) -> Tensor:
    """Latents of the target chunk, draws of its posterior: [N, P, Z] in fp32 from normals [N, P, Z]."""
    return mean.float() + normal * log_std.float().exp()
