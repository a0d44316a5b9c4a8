"""The weights that a sampler of one's own holds, wherever it has them from: a file, a hub, an address.

Its code names them and does not hold them, so that the code alone would say of two models that they are one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

MOST_DEEP = 4
"""Objects in objects that are looked into."""


def weights_digest(sampler: object) -> str | None:
    """SHA-256 over what ``sampler`` holds: parameters, tensors and arrays by name, type, shape and value, and tables of
    numbers and texts (lists, mappings); None where it has none.

    It may hold them in its attributes, in those of its classes, in the modules of these, and in what functions among
    them have bound.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    found = False
    for name, value in _places(sampler):
        for part, weights in _weights(name, value, seen, MOST_DEEP):
            found = True
            if isinstance(weights, str):
                digest.update(f"{part} {weights}".encode("utf-8", "surrogatepass"))
                continue
            digest.update(f"{part} {weights.dtype} {tuple(weights.shape)}".encode())
            digest.update(_bytes_of(weights))
    return digest.hexdigest() if found else None


def _places(sampler: object) -> Iterator[tuple[str, Any]]:
    """Where a sampler may hold weights, itself first, with what their names begin with."""
    yield "", sampler
    for kind in type(sampler).__mro__:
        top = kind.__module__.partition(".")[0]
        if top in sys.stdlib_module_names and top != "__main__":
            continue
        yield from ((f"class.{name}", value) for name, value in _own(vars(kind)))
        module = sys.modules.get(kind.__module__)
        if top not in ("torch", "numpy", "transformers") and module is not None:
            yield from ((f"module.{name}", value) for name, value in _own(vars(module)))


def _own(names: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is no class or module, and not Python's own."""
    found = [(name, value) for name, value in names.items() if not name.startswith("__")]
    return sorted((name, value) for name, value in found if not isinstance(value, type | ModuleType))


def _weights(name: str, value: Any, seen: set[int], deep: int) -> Iterator[tuple[str, Any]]:
    if id(value) in seen or deep < 0:
        return
    # Small numbers and texts are one object wherever they stand.
    if not isinstance(value, int | float | str | bytes | None):
        seen.add(id(value))
    # Who holds tensors has imported it.
    torch: Any = sys.modules.get("torch")
    if isinstance(value, np.ndarray | np.generic) or (torch is not None and isinstance(value, torch.Tensor)):
        if value.dtype != object:
            yield name, value
    elif torch is not None and isinstance(value, torch.nn.Module):
        yield from ((f"{name}.{part}", tensor) for part, tensor in value.state_dict().items())
    elif isinstance(value, Mapping | list | tuple | set | frozenset) and (table := _as_text(value, deep)) is not None:
        if value:
            yield name, table
    else:
        for part, item in _parts(value):
            yield from _weights(f"{name}.{part}", item, seen, deep - 1)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, by name."""
    match value:
        case Mapping():
            yield from ((str(key), value[key]) for key in sorted(value, key=str))
        case list() | tuple():
            yield from ((str(index), item) for index, item in enumerate(value))
        case partial():
            yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
        case MethodType():
            yield from (("self", value.__self__), ("function", value.__func__))
        case FunctionType():
            yield from (("defaults", value.__defaults__), ("keywords", value.__kwdefaults__))
            for bound, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
                yield from ((bound, item) for item in _content(cell))
        case SimpleNamespace():
            yield from sorted(vars(value).items())
        case _ if isinstance(value, type | ModuleType) or type(value).__module__ in sys.stdlib_module_names:
            # Locks, loggers, moments: they hold no weights, and vary.
            return
        case _:
            slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
            yield from ((name, getattr(value, name)) for name in sorted(slots))
            if hasattr(value, "__dict__") and not hasattr(value, "__get__"):
                yield from sorted(vars(value).items())


def _content(cell: Any) -> Iterator[Any]:
    """What a name that a function has bound stands for; nothing where it does not yet."""
    try:
        yield cell.cell_contents
    except ValueError:
        return


def _slots(kind: type) -> tuple[str, ...]:
    named = vars(kind).get("__slots__", ())
    return tuple(name for name in ((named,) if isinstance(named, str) else named) if not name.startswith("__"))


def _as_text(value: Any, deep: int) -> str | None:
    """A table of numbers and texts as text that is equal for equal ones; None where something else is in it."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if deep < 0:
        return None
    if isinstance(value, Mapping):
        pairs = [(_as_text(key, deep - 1), _as_text(item, deep - 1)) for key, item in value.items()]
        whole = [f"{key}: {item}" for key, item in pairs if key is not None and item is not None]
        return "{" + ", ".join(sorted(whole)) + "}" if len(whole) == len(pairs) else None
    if isinstance(value, list | tuple | set | frozenset):
        items = [_as_text(item, deep - 1) for item in value]
        known = [item for item in items if item is not None]
        if len(known) < len(items):
            return None
        return "[" + ", ".join(sorted(known) if isinstance(value, set | frozenset) else known) + "]"
    return None


def _bytes_of(value: Any) -> memoryview | bytes:
    if isinstance(value, np.ndarray | np.generic):
        return np.ascontiguousarray(value).data.cast("B") if value.size else b""
    import torch

    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8) if value.numel() else None
    return b"" if flat is None else flat.numpy().data
