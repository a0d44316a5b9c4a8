"""The product of a gated layer (SwiGLU, arXiv 2002.05202)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) * up; where no gradient is wanted in the place of ``gate``, which is nobody else's."""
    if torch.is_grad_enabled():
        return functional.silu(gate) * up
    return functional.silu(gate, inplace=True).mul_(up)
