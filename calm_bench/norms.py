"""Norms of rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467), with the bits of torch's."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        is_plain = x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.float32
        if torch.is_grad_enabled() or not is_plain or self.eps is None:
            normed: Tensor = super().forward(x)
            return normed
        # torch's own operations on a CPU, in half of the memory, which then stays in the processor's caches.
        squares = x * x
        scale = squares.mean(dim=-1, keepdim=True).add_(self.eps).rsqrt_()
        return torch.mul(x, scale, out=squares).mul_(self.weight)
