"""The workers of the training that runs, and the tensors that they have a part of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from calm_bench.training.checkpoint_files import StoredTensors, divided_rows
from calm_bench.training.distributed_group import DistributedGroup
from calm_bench.training.workers import SingleProcess, Strategy, Workers

_workers: ContextVar[Workers | None] = ContextVar("workers", default=None)


def current_workers() -> Workers:
    """The processes that this training has, as :func:`data_parallel` says."""
    return _workers.get() or SingleProcess()


@contextmanager
def data_parallel(strategy: Strategy = "ddp") -> Iterator[None]:
    """Let trainings inside the block be shared by the default process group, all of whose processes must enter it.

    No part of a training's configuration: how many machines there are is no reason for other numbers.

    Args:
        strategy: ``ddp`` keeps all weights on every worker. ``fsdp`` divides weights, gradients and the optimizer's
            state of language models; autoencoders are small and stay whole.
    """
    before = _workers.set(DistributedGroup(strategy))
    try:
        yield
    finally:
        _workers.reset(before)


def whole_tensor(tensor: Tensor) -> Tensor:
    """``tensor`` itself, or all of it where workers have a part each; all of them must ask for it."""
    whole: Tensor = tensor.full_tensor() if is_divided(tensor) else tensor  # type: ignore[attr-defined]
    return whole


def is_divided(tensor: Tensor) -> bool:
    """Whether workers have a part of it each."""
    return hasattr(tensor, "full_tensor")


def own_rows_of(tensor: Tensor) -> Tensor:
    """What this worker has of ``tensor``: its rows as ``torch.chunk`` divides them, or all of it."""
    if not is_divided(tensor):
        return tensor
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(tensor, DTensor)
    assert tensor.placements == (Shard(0),), tensor.placements
    return tensor.to_local()


def read_like(stored: StoredTensors, name: str, other: Tensor) -> Tensor:
    """The tensor ``name``, divided as ``other`` is; of a divided one this worker reads its own rows only."""
    if not is_divided(other):
        return stored.whole(name)
    from torch.distributed.tensor import DTensor

    assert isinstance(other, DTensor)
    assert stored.shape(name) == other.shape
    mesh = other.device_mesh
    local = stored.rows(name, *divided_rows(other.shape[0], mesh.get_local_rank(), mesh.size())).to(other.device)
    return DTensor.from_local(local, mesh, other.placements, shape=other.shape, stride=other.stride())


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """All tensors of ``module`` on the CPU, on the first worker; empty on others, who must ask for it too."""
    is_first = current_workers().is_first
    state = {}
    for name, tensor in module.state_dict().items():
        whole = whole_tensor(tensor.detach())
        if is_first:
            state[name] = whole.cpu().contiguous()
    return state
