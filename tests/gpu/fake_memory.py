"""Bytes that work would hold, counted on tensors without data: the paper's sizes in seconds on any machine."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """``peak`` is the most that was held at once of what was made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return found

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # What torch keeps is the storage; the object that Python sees is made anew when nobody holds it.
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        count = storage.nbytes()
        self.held += count
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, key, count)

    def _forget(self, key: int, count: int) -> None:
        self._known.discard(key)
        self.held -= count
