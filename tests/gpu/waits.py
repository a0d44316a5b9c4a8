"""What a GPU would be waited for: operations whose result decides what the CPU does next.

Counted on the CPU, where they do no harm: numbers, booleans and shapes read from tensors. Copies between devices are
not seen here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
}
INDEXES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}


class Waits(TorchDispatchMode):
    """``count`` by the kind of operation."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in READS:
            self.count[name] += 1
        if name == "aten::repeat_interleave" and func._overloadname == "Tensor":
            self.count[name] += (kwargs or {}).get("output_size") is None
        if name in INDEXES:
            self.count[name] += any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return self.count.total()
