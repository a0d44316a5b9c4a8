"""A model of a GPU's kernels: what operations would take on it, dispatched for tensors without data.

An operation takes the slower of its FLOPs at 70 % of the peak for products (35 and 28 % for attention, forward and
backward) and of its bytes at 85 % of the bandwidth, at least 2.5 µs; the CPU launches one in 6 µs. *As it is*, every
operation is a kernel. *Compiled*, all that lies between two products is one, which reads what was made before it and
writes what is used after it: the bound of what a compiler can fuse, with every tensor that eager code keeps for its
backward pass.

The GPU is an H100 by its data sheet. No GPU has confirmed the model.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PEAKS = {"bf16": 989e12, "TF32": 494e12, "fp32": 67e12}
"""FLOPs a second of dense products."""
PEAK, BANDWIDTH = PEAKS["bf16"], 3.35e12
OF_PRODUCTS, OF_BANDWIDTH = 0.70, 0.85
OF_ATTENTION, OF_ATTENTION_BACKWARD = 0.35, 0.28
LEAST_S, LAUNCH_S = 2.5e-6, 6e-6
"""Seconds of the smallest kernel, and of the CPU for each."""
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "linear"}
IN_PLACE = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "lift_fresh", "alias"}
"""Operations that no kernel serves, beside views."""


@dataclass
class Kernels:
    """What a list of kernels takes."""

    seconds: float = 0.0
    count: int = 0
    flops: float = 0.0
    """Of products, those of attention halved for causality."""

    def add(self, flops: float, rate: float, num_bytes: float) -> None:
        self.seconds += max(flops / rate, num_bytes / (OF_BANDWIDTH * BANDWIDTH), LEAST_S)
        self.count += 1
        self.flops += flops

    @property
    def wall(self) -> float:
        """Seconds: the GPU's or those of launching, whichever is more."""
        return max(self.seconds, LAUNCH_S * self.count)


@dataclass
class Run:
    """Operations between two products, which one kernel could do."""

    read: dict[int, int] = field(default_factory=dict)
    """Bytes by storage, of tensors that were made before."""
    made: dict[int, tuple[Any, int]] = field(default_factory=dict)
    """Storages by key, weakly, and their bytes."""


class Roofline(TorchDispatchMode):
    """Counts what is computed inside, as it is and compiled."""

    def __init__(self, peak: float = PEAK) -> None:
        """
        Args:
            peak: FLOPs a second of products.
        """
        super().__init__()
        self._peak = peak
        self.eager, self.compiled = Kernels(), Kernels()
        self._run = Run()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        # What the result is written to is made, not given.
        read = {key: value for key, value in (kwargs or {}).items() if key != "out"}
        given = [tensor for tensor in tree_leaves((args, read)) if isinstance(tensor, Tensor)]
        made = [tensor for tensor in tree_leaves(found) if isinstance(tensor, Tensor)]
        if func.is_view or name in IN_PLACE or not made:
            return found
        num_bytes = sum(map(bytes_of, given)) + sum(map(bytes_of, made))
        if name in PRODUCTS or "attention" in name:
            self.end_run()
            flops, share = cost(name, given, made)
            self.eager.add(flops, share * self._peak, num_bytes)
            self.compiled.add(flops, share * self._peak, num_bytes)
        else:
            self.eager.add(0.0, PEAK, num_bytes)
            self._note(given, made)
        return found

    def _note(self, given: list[Tensor], made: list[Tensor]) -> None:
        run = self._run
        for tensor in given:
            key = tensor.untyped_storage()._cdata
            if key not in run.made:
                run.read[key] = max(run.read.get(key, 0), bytes_of(tensor))
        for tensor in made:
            storage = tensor.untyped_storage()
            run.made[storage._cdata] = (weakref.ref(storage), bytes_of(tensor))

    def end_run(self) -> None:
        """Count what was computed since the last product as one kernel."""
        run, self._run = self._run, Run()
        written = sum(count for storage, count in run.made.values() if storage() is not None)
        if run.made:
            self.compiled.add(0.0, PEAK, sum(run.read.values()) + written)


def bytes_of(tensor: Tensor) -> int:
    """Of the numbers in memory: expanded dimensions are stored once."""
    count = tensor.element_size()
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count


def cost(name: str, given: list[Tensor], made: list[Tensor]) -> tuple[float, float]:
    """FLOPs of a product, and the share of the peak at which it runs."""
    if "attention" in name:
        query, key = (given[1], given[2]) if "backward" in name else (given[0], given[1])
        batch, heads, length, size = query.shape
        # Two products forward and five backward, of which causality leaves half.
        products = 5 if "backward" in name else 2
        share = OF_ATTENTION_BACKWARD if "backward" in name else OF_ATTENTION
        return products * batch * heads * length * key.shape[2] * size, share
    first, second = given[-2:]
    rows = first.numel() // first.shape[-1]
    return 2.0 * rows * first.shape[-1] * second.shape[-1], OF_PRODUCTS
