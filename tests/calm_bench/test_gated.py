"""The gated product with and without gradients."""

from __future__ import annotations

import torch
from torch.nn import functional

from calm_bench.gated import gated


def test_in_place_and_not_it_has_the_same_bits_and_gradients_where_they_are_wanted() -> None:
    gate, up = torch.randn(2, 37, 50, generator=torch.Generator().manual_seed(0)).unbind()
    expected = functional.silu(gate) * up
    leaves = gate.clone().requires_grad_(), up.clone().requires_grad_()
    found = gated(*leaves)
    assert torch.equal(found, expected)
    given = torch.autograd.grad(found.sum(), leaves)
    assert torch.equal(given[1], functional.silu(gate))
    with torch.no_grad():
        own = gate.clone()
        assert torch.equal(gated(own, up), expected)
        assert torch.equal(own, expected)  # no other tensor was asked for
