"""Bytes that work would hold, counted on tensors without data: the paper's sizes in seconds on any machine."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """``peak`` is the most that was held at once of what was made inside."""

    def __init__(self, resized: bool = False) -> None:
        """
        Args:
            resized: look at every size at every operation, for code that resizes what it has: FSDP keeps the tensors
                that it fills and empties.
        """
        super().__init__()
        self.held = self.peak = 0
        self._resized = resized
        self._storages: dict[int, tuple[weakref.ref[Any], int]] = {}
        """What is held, by address: the storage and its bytes when they were counted."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        # Views of tensors without data may say that they have a storage of their own.
        if not func.is_view:
            for tensor in tree_leaves(found):
                if isinstance(tensor, Tensor):
                    self._note(tensor)
        if self._resized:
            self._count_again()
        self.peak = max(self.peak, self.held)
        return found

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # What torch keeps is the storage; the object that Python sees is made anew when nobody holds it.
        key = storage._cdata
        if key in self._storages:
            return
        count = storage.nbytes()
        self._storages[key] = weakref.ref(storage), count
        self.held += count
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.held -= self._storages.pop(key)[1]

    def _count_again(self) -> None:
        for key, (reference, before) in list(self._storages.items()):
            if (storage := reference()) is not None and (count := storage.nbytes()) != before:
                self._storages[key] = reference, count
                self.held += count - before
