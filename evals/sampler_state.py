"""The weights that a sampler of one's own holds, wherever it has them from: a file, a hub, an address.

Its code names them and does not hold them, so that the code alone would say of two models that they are one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

MOST_DEEP = 4
"""Objects in objects that are looked into."""


def weights_digest(sampler: object) -> str | None:
    """SHA-256 over the parameters, tensors and arrays in the attributes of ``sampler``, by name, type, shape and value;
    None where it has none."""
    digest = hashlib.sha256()
    seen: set[int] = set()
    found = False
    for name, value in _weights("", sampler, seen, MOST_DEEP):
        found = True
        array = _bytes_of(value)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(array)
    return digest.hexdigest() if found else None


def _weights(name: str, value: Any, seen: set[int], deep: int) -> Iterator[tuple[str, Any]]:
    if id(value) in seen or deep < 0:
        return
    seen.add(id(value))
    # Who holds tensors has imported it.
    torch: Any = sys.modules.get("torch")
    if isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor)):
        if value.dtype != object:
            yield name, value
    elif torch is not None and isinstance(value, torch.nn.Module):
        yield from ((f"{name}.{part}", tensor) for part, tensor in value.state_dict().items())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _weights(f"{name}.{key}", value[key], seen, deep - 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _weights(f"{name}.{index}", item, seen, deep - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type | ModuleType) and not hasattr(value, "__get__"):
        for key, item in sorted(vars(value).items()):
            yield from _weights(f"{name}.{key}", item, seen, deep - 1)


def _bytes_of(value: Any) -> memoryview | bytes:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).data.cast("B") if value.size else b""
    import torch

    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8) if value.numel() else None
    return b"" if flat is None else flat.numpy().data
