"""The workers of the training that runs, and the tensors that they have a part of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

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
    gather = getattr(tensor, "full_tensor", None)
    whole: Tensor = tensor if gather is None else gather()
    return whole


def divided_like(tensor: Tensor, other: Tensor) -> Tensor:
    """This worker's part of the whole ``tensor``, where ``other`` is divided; otherwise ``tensor`` itself."""
    if not hasattr(other, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    # Every worker has read the same file: nothing needs to be sent.
    local = tensor.to(other.device)
    return distribute_tensor(local, other.device_mesh, other.placements, src_data_rank=None)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """All tensors of ``module`` on the CPU, on the first worker; empty on others, who must ask for it too."""
    is_first = current_workers().is_first
    state = {}
    for name, tensor in module.state_dict().items():
        whole = whole_tensor(tensor.detach())
        if is_first:
            state[name] = whole.cpu().contiguous()
    return state
