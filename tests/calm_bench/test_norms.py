"""RMSNorm is torch's, to the bit, with and without gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from calm_bench.norms import RMSNorm


@pytest.mark.parametrize("shape", [(1, 5), (37, 96), (2, 31, 256), (0, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_in_place_and_not_it_has_the_bits_of_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = RMSNorm(shape[-1], eps=1e-5, dtype=dtype)
    torch.nn.init.normal_(norm.weight, generator=generator)
    x = torch.randn(shape, generator=generator).to(dtype)
    x[:1] *= 1e-3  # where eps counts
    before = x.clone()
    expected = functional.rms_norm(x, (shape[-1],), norm.weight, 1e-5).detach()
    with torch.no_grad():
        assert torch.equal(norm(x), expected)
    assert torch.equal(x, before)
    found = norm(x)
    assert found.grad_fn is not None
    assert torch.equal(found, expected)


def test_rows_that_do_not_lie_together() -> None:
    norm, x = RMSNorm(16, eps=1e-5), torch.randn(16, 40, generator=torch.Generator().manual_seed(0)).T
    with torch.no_grad():
        assert torch.equal(norm(x), functional.rms_norm(x, (16,), norm.weight, 1e-5))
