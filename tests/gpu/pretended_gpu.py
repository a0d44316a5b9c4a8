"""A GPU that is pretended: its tensors say ``cuda:0`` and are computed on the CPU, with their numbers.

What a GPU refuses is refused: tensors of two devices in one operation, a generator of another device than what it
fills, numpy's view of a tensor. What a GPU is waited for is counted by the line that asks: numbers, truth values and
shapes that are read from tensors, and copies from or to memory that is not page-locked.

Which tensors are on the GPU is known by their storage, so that views, parameters and gradients need nothing of their
own. Autocast is the CPU's: bf16 where a GPU has it, chosen by the CPU's lists of operations.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self
from weakref import WeakValueDictionary

import pytest
import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = "cuda:0"
PACKAGES = ("calm_bench", "evals")
ROOT = Path(__file__).parents[2]
FOLDERS = tuple(f"{ROOT / package}/" for package in PACKAGES)

READS = {
    "aten::_local_scalar_dense": "number",
    "aten::is_nonzero": "number",
    "aten::equal": "equal",
    "aten::nonzero": "nonzero",
    "aten::masked_select": "masked_select",
    "aten::_unique2": "unique",
    "aten::unique_dim": "unique",
    "aten::unique_consecutive": "unique",
    "aten::bincount": "bincount",
}
"""Operations whose result, or its shape, the CPU has to know."""
INDEXES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
TAKES_NO_SCALAR = {"aten::cat", "aten::stack", "aten::gather", "aten::scatter", "aten::scatter_", "aten::index_select"}
"""Operations that do not take a number on the CPU among tensors of a GPU, as arithmetic does."""
NO_KERNEL = {
    *(f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")),
    *(f"aten::{name}" for name in ("detach", "alias", "_local_scalar_dense", "lift_fresh")),
}
VIEWS_ON_CPU = {Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr}


class DevicesMixed(RuntimeError):
    """An operation on tensors or generators of two devices."""


class PretendedGpu:
    """``waits`` counts by ``kind at file:line``, of the innermost line of the project."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.kernels = 0
        """Operations that computed something there; views and new memory are none."""
        self._storages: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self._page_locked: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def holds(self, tensor: Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            # Inside torch.func.vmap a tensor is one of many, and the memory is theirs.
            while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
                tensor = torch._C._functorch.get_unwrapped(tensor)
            return tensor.untyped_storage()._cdata in self._storages

    def take(self, found: Any) -> None:
        """Say of every tensor in ``found`` that it is on the GPU."""
        _note(found, self._storages)

    def lock(self, found: Any) -> None:
        """Say of every tensor in ``found`` that it is in page-locked memory."""
        _note(found, self._page_locked)

    def is_locked(self, tensor: Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()._cdata in self._page_locked

    def wait(self, kind: str) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(FOLDERS):
            frame = frame.f_back
        self.waits[f"{kind} at {_line(frame)}"] += 1


def _line(frame: FrameType | None) -> str:
    if frame is None:
        return "outside the project"
    return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"


def _tensors(*values: Any) -> list[Tensor]:
    """Tensors in ``values`` and in the lists, tuples and dictionaries among them; asked for at every operation."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(*value)
        elif isinstance(value, dict):
            found += _tensors(*value.values())
    return found


def _note(found: Any, book: WeakValueDictionary[int, Any]) -> None:
    with torch._C.DisableTorchFunction():
        for tensor in _tensors(found):
            storage = tensor.untyped_storage()
            book[storage._cdata] = storage


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Let this process have a GPU while the block runs; models and tensors get there by ``to("cuda")``."""
    gpu = PretendedGpu()
    calls = _Calls(gpu)
    with pytest.MonkeyPatch.context() as patch, calls.kernels, calls:
        _patch(patch, gpu)
        yield gpu


class _Calls(TorchFunctionMode):
    """What is asked of torch: which device a call names, and what tells of a device."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.kernels = _Kernels(gpu)
        getters: Any = Tensor
        self._special: dict[Any, Callable[..., Any]] = {
            getters.device.__get__: lambda tensor: torch.device(GPU if gpu.holds(tensor) else tensor.device),
            getters.is_cuda.__get__: lambda tensor: gpu.holds(tensor),
            getters.is_cpu.__get__: lambda tensor: not gpu.holds(tensor),
            Tensor.to: self._to,
            Tensor.cpu: lambda tensor: self._moved(tensor, to_gpu=False, non_blocking=False),
            Tensor.cuda: lambda tensor, *ignored: self._moved(tensor, to_gpu=True, non_blocking=False),
            Tensor.pin_memory: self._pin,
            Tensor.is_pinned: gpu.is_locked,
            Tensor.tolist: self._listed,
            Tensor.backward: self._backward,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if special := self._special.get(func):
            return special(*args, **kwargs)
        if func in VIEWS_ON_CPU and self.gpu.holds(args[0]):
            raise DevicesMixed(f"{func.__name__} of a tensor on {GPU}")
        named = kwargs.get("device")
        on_gpu = None if named is None else torch.device(named).type == "cuda"
        tensors = _tensors(args, kwargs)
        beside_gpu = any(map(self.gpu.holds, tensors))
        if on_gpu:
            kwargs["device"] = "cpu"
        self._check_generator(func, kwargs.get("generator"), beside_gpu if on_gpu is None else on_gpu)
        if func in (torch.tensor, torch.as_tensor) and on_gpu and not beside_gpu:
            self.gpu.wait("copy to the GPU")
        locked = kwargs.pop("pin_memory", False)
        with self.kernels.making(on_gpu, beside_gpu):
            found = func(*args, **kwargs)
        if locked:
            self.gpu.lock(found)
        return found

    def _check_generator(self, func: Any, generator: Any, on_gpu: bool) -> None:
        if generator is not None and (generator.device.type == "cuda") != on_gpu:
            raise DevicesMixed(f"{func.__name__} on {GPU if on_gpu else 'cpu'} draws from one on {generator.device}")

    def _to(self, tensor: Tensor, *args: Any, non_blocking: bool = False, copy: bool = False, **kwargs: Any) -> Tensor:
        to_gpu, dtype = self.gpu.holds(tensor), tensor.dtype
        for value in (*args, *(kwargs.pop(name) for name in ("device", "dtype") if name in kwargs)):
            if isinstance(value, Tensor):
                to_gpu, dtype = self.gpu.holds(value), value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, str | torch.device):
                to_gpu = torch.device(value).type == "cuda"
            elif isinstance(value, bool):
                non_blocking = value
        if to_gpu != self.gpu.holds(tensor):
            tensor = self._moved(tensor, to_gpu, non_blocking)
            copy = False
        with self.kernels.making(None, False):
            return tensor.to(dtype, copy=copy, **kwargs)

    def _moved(self, tensor: Tensor, to_gpu: bool, non_blocking: bool) -> Tensor:
        if self.gpu.holds(tensor) == to_gpu:
            return tensor
        if not (non_blocking and self.gpu.is_locked(tensor)):
            self.gpu.wait("copy to the GPU" if to_gpu else "copy from the GPU")
        with self.kernels.unseen():
            moved = tensor.clone()
        if to_gpu:
            self.gpu.take(moved)
        return moved

    def _pin(self, tensor: Tensor) -> Tensor:
        if self.gpu.holds(tensor):
            raise DevicesMixed("memory of a GPU cannot be page-locked")
        copied = tensor.clone()
        self.gpu.lock(copied)
        return copied

    def _listed(self, tensor: Tensor) -> Any:
        return self._moved(tensor, to_gpu=False, non_blocking=False).tolist()

    def _backward(self, tensor: Tensor, gradient: Any = None, **rest: Any) -> None:
        # The backward passes of functions of the project's own are looked at as their forward passes are.
        with self, self.kernels.making(None, self.gpu.holds(tensor)):
            torch.autograd.backward(tensor, gradient, **rest)


class _Kernels(TorchDispatchMode):
    """What torch computes, down to single operations, in backward passes too."""

    supports_higher_order_operators = True

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu
        self._on_gpu: bool | None = None
        self._beside_gpu = False
        self._unseen = False

    @contextmanager
    def making(self, on_gpu: bool | None, beside_gpu: bool) -> Iterator[None]:
        """Around a call that names a device, or that was given tensors of the GPU: where new tensors are made."""
        before = self._on_gpu, self._beside_gpu
        self._on_gpu, self._beside_gpu = on_gpu, beside_gpu
        try:
            yield
        finally:
            self._on_gpu, self._beside_gpu = before

    @contextmanager
    def unseen(self) -> Iterator[None]:
        before, self._unseen = self._unseen, True
        try:
            yield
        finally:
            self._unseen = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            if self._unseen:
                return func(*args, **kwargs)
            tensors = _tensors(args, kwargs)
            here = [tensor for tensor in tensors if self.gpu.holds(tensor)]
            if isinstance(func, HigherOrderOperator):
                return self._whole(func, args, kwargs, len(here) not in (0, len(tensors)))
            name = func._schema.name
            if here:
                self._check(func, args, kwargs, [tensor for tensor in tensors if not self.gpu.holds(tensor)])
            found = func(*args, **kwargs)
            on_gpu = self._on_gpu
            if on_gpu is None:
                on_gpu = bool(here) if tensors else self._beside_gpu
            if (here or on_gpu) and not func.is_view and name not in NO_KERNEL:
                self.gpu.kernels += 1
            if on_gpu and not (name == "aten::copy_" and not self.gpu.holds(args[0])):
                self.gpu.take(found)
        return found

    def _whole(self, func: HigherOrderOperator, args: Any, kwargs: Any, is_mixed: bool) -> Any:
        """An operation that a GPU has one kernel for, and a CPU several operations of torch."""
        if is_mixed:
            raise DevicesMixed(f"{func} of tensors on {GPU} and on the CPU")
        found = func(*args, **kwargs)
        self.gpu.take(found)
        return found

    def _check(self, func: Any, args: Any, kwargs: Any, away: list[Tensor]) -> None:
        """Refuse or count an operation on tensors of the GPU, and of the CPU in ``away``."""
        name = func._schema.name
        if name in READS:
            self.gpu.wait(READS[name])
        if name == "aten::repeat_interleave" and kwargs.get("output_size") is None:
            self.gpu.wait("repeat_interleave")
        if name == "aten::copy_":
            locked = any(map(self.gpu.is_locked, away)) and (kwargs.get("non_blocking") or args[2:] == (True,))
            if away and not locked:
                self.gpu.wait("copy to the GPU" if self.gpu.holds(args[0]) else "copy from the GPU")
            return
        if name in INDEXES:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.gpu.wait("boolean index")
            if any(not self.gpu.holds(index) for index in indices):
                self.gpu.wait("index on the CPU")
            known = {id(index) for index in indices}
            away = [tensor for tensor in away if id(tensor) not in known]
        written = [
            value
            for described, value in zip(func._schema.arguments, args, strict=False)
            if described.alias_info is not None and described.alias_info.is_write
        ]
        refused = [
            tensor
            for tensor in away
            if tensor.dim() or name in TAKES_NO_SCALAR or any(tensor is value for value in _tensors(written))
        ]
        if refused:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in refused)
            raise DevicesMixed(f"{name} of tensors on {GPU} and of {shapes} on the CPU")


def _patch(patch: pytest.MonkeyPatch, gpu: PretendedGpu) -> None:
    """Names of torch that reach C++ past both modes."""
    from calm_bench import row_noise

    class Generator(torch.Generator):
        _device: torch.device

        def __new__(cls, device: Any = "cpu") -> Self:
            self = super().__new__(cls, "cpu")
            self._device = torch.device(device)
            return self

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return self._device

    class RowNoise(row_noise.RowNoise, Generator):
        def __new__(cls, rows: Any, gather: Any, device: Any = "cpu") -> Self:
            self = Generator.__new__(cls, device)
            self.rows, self.gather = rows, gather
            return self

    replaced: dict[Any, Any] = {torch.Generator: Generator, row_noise.RowNoise: RowNoise}
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES]:
        if module is not row_noise:
            for name, value in list(vars(module).items()):
                if isinstance(value, type) and value in replaced:
                    patch.setattr(module, name, replaced[value])
    grouped = torch._C._group_tensors_by_device_and_dtype

    def by_device(tensors: Any, with_indices: bool = False) -> Any:
        # Optimizers and clipping ask in C++, which sees tensors of the CPU.
        device = torch.device(GPU if any(map(gpu.holds, _tensors(tensors))) else "cpu")
        return {(device, dtype): found for (_, dtype), found in grouped(tensors, with_indices).items()}

    patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", by_device)
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(torch, "autocast", _Autocast)
    patch.setattr(torch.cuda, "synchronize", lambda *ignored: gpu.wait("synchronize"))
    patch.setattr(torch.cuda, "mem_get_info", lambda *ignored: (80 << 30, 80 << 30))
    patch.setattr(torch.cuda, "memory_reserved", lambda *ignored: 0)
    patch.setattr(torch.cuda, "get_device_name", lambda *ignored: "pretended")


class _Autocast:
    """The CPU's for the GPU, which is told of it too."""

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> None:
        self._device_type, self._dtype, self._enabled = device_type, dtype, enabled

    def __enter__(self) -> None:
        self._stack = ExitStack()
        kind = self._device_type
        self._stack.enter_context(_CPU_AUTOCAST("cpu", dtype=self._dtype or torch.bfloat16, enabled=self._enabled))
        if kind == "cuda":
            self._stack.callback(torch.set_autocast_enabled, kind, torch.is_autocast_enabled(kind))
            self._stack.callback(torch.set_autocast_dtype, kind, torch.get_autocast_dtype(kind))
            torch.set_autocast_enabled(kind, self._enabled)
            torch.set_autocast_dtype(kind, self._dtype or torch.bfloat16)

    def __exit__(self, *error: Any) -> None:
        self._stack.close()


_CPU_AUTOCAST = torch.autocast
