"""Arithmetic of the matrix products of a run, on both sides of :mod:`bench.reference`; knows no other file."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def gflop(run: Callable[[], object]) -> float:
    """Two for each multiplication and addition, in products and in attention; whatever else is computed is left out."""
    products = _Products()
    with products:
        run()
    return products.flop / 1e9


class _Products(TorchDispatchMode):
    flop: float = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        shapes = [argument.shape for argument in args if isinstance(argument, torch.Tensor)]
        if name in ("linear", "mm", "bmm", "matmul"):
            self.flop += 2 * prod(result.shape) * shapes[0][-1]
        elif name in ("addmm", "addmm_", "baddbmm"):
            self.flop += 2 * prod(result.shape) * shapes[1][-1]
        elif "scaled_dot_product" in name:
            # Of causal attention too, of which half is thrown away. A backward pass has five products, a forward two.
            is_backward = name.endswith("backward")
            query, keys = shapes[is_backward], shapes[is_backward + 1]
            self.flop += (10 if is_backward else 4) * prod(query) * keys[-2]
        return result
