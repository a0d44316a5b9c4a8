"""One of several processes of ``torch.distributed`` that train one model together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from calm_bench.arithmetic import Precision
from calm_bench.row_noise import Rows
from calm_bench.training.workers import (
    P,
    Share,
    Strategy,
    T,
    Terms,
    Workers,
    each_whole,
    noise_of,
    own_rows,
    whole_shares,
)
from calm_bench.worker_shares import deals_whole


class DistributedGroup(Workers):
    """One of several processes, in the default process group of ``torch.distributed``.

    The group must serve tensors on the CPU beside those on the training's device (``cpu:gloo,cuda:nccl``), so that
    what the hosts agree on does not wait for the GPUs.
    """

    def __init__(self, strategy: Strategy = "ddp") -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.strategy = strategy
        self._wrapped: nn.Module | None = None

    def prepare(
        self, module: nn.Module, units: Sequence[nn.Module], skips_parameters: bool, precision: Precision = "fp32"
    ) -> None:
        whole = _Whole(module)
        if self.strategy == "fsdp" and units:
            self._wrapped = _sharded(whole, units, precision)
        else:
            # Initial weights are the same everywhere, but not what a network card makes of them: torch sends them.
            self._wrapped = nn.parallel.DistributedDataParallel(
                whole,
                forward_sync_buffers=False,
                find_unused_parameters=skips_parameters,
                # Gradients lie in the buckets that are sent, instead of beside them.
                gradient_as_bucket_view=True,
            )

    def shares(self, batch: Tensor, parts: int, by_rows: bool) -> list[Share]:
        micro_batches = whole_shares(batch, parts)
        if deals_whole(len(batch), parts, self.size, by_rows):
            return micro_batches[self.rank :: self.size]
        return [self._of(whole) for whole in micro_batches]

    def scored(self, held_out: Sequence[Tensor], parts: int, by_rows: bool) -> list[Share]:
        micro_batches = each_whole(held_out)
        if parts % self.size and by_rows and min(map(len, held_out)) >= self.size:
            return [self._of(whole) for whole in micro_batches]
        dealt = micro_batches[self.rank :: self.size]
        lacking = -(-len(micro_batches) // self.size) - len(dealt)
        return dealt + [replace(micro_batches[-1], counts=False)] * lacking

    def sums(self, own: Sequence[float]) -> list[float]:
        total = torch.tensor(own, dtype=torch.float64)
        dist.all_reduce(total)
        return list(total.tolist())

    def noise(self, share: Share, seed: int, step: int, device: str) -> Generator:
        # Other workers may be at other rows of their own meanwhile.
        gather = own_rows if share.is_piece else partial(self._gather, rows=share.rows)
        return noise_of(share, gather, seed, step, device)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        assert self._wrapped is not None
        result: T = self._wrapped(function, *args, **kwargs)
        return result

    def evaluate(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if isinstance(self._wrapped, nn.parallel.DistributedDataParallel):
            # All weights are here.
            return function(*args, **kwargs)
        result = self.call(function, *args, **kwargs)
        _reshard(self._wrapped)
        return result

    def last(self, is_last: bool) -> AbstractContextManager[object]:
        if is_last or not isinstance(self._wrapped, nn.parallel.DistributedDataParallel):
            # A model in pieces sums pieces of gradients too: to send once only would keep whole ones until then.
            return nullcontext()
        alone: AbstractContextManager[object] = self._wrapped.no_sync()
        return alone

    def totals(self, terms: Sequence[tuple[Share, Terms]], parts: int) -> list[tuple[Terms, int]]:
        names = list(terms[0][1])
        # What a head from elsewhere tells may lie on the CPU beside a loss on a GPU.
        zero = torch.zeros((), device=terms[0][1]["loss"].device)
        own = torch.stack([sum((share.fraction * each[name].float() for share, each in terms), zero) for name in names])
        dist.all_reduce(own)
        return [(dict(zip(names, own.unbind(), strict=True)), parts)]

    def any(self, flag: bool) -> bool:
        said = torch.tensor(int(flag))
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return bool(said)

    def told(self, number: int) -> int:
        said = torch.tensor(number)
        dist.broadcast(said, src=0)
        return int(said)

    def _of(self, whole: Share) -> Share:
        """This worker's rows of a micro-batch."""
        own = self._rows(self.rank, whole.rows.total)
        return Share(whole.index, whole.tokens[own.start : own.stop], own, workers=self.size)

    def _rows(self, rank: int, total: int) -> Rows:
        return Rows(total * rank // self.size, total * (rank + 1) // self.size, total)

    def _gather(self, own: Tensor, rows: Rows) -> Tensor:
        """Positions of all workers, who may have those of one row more or less than others."""
        each = len(own) // rows.count
        counts = [each * self._rows(rank, rows.total).count for rank in range(self.size)]
        padded = own.new_zeros((max(counts), *own.shape[1:]))
        padded[: len(own)] = own
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        return torch.cat([positions[:count] for positions, count in zip(gathered, counts, strict=True)])


class _Whole(nn.Module):
    """A module whose forward pass is any function that calls it, since ours have several ways to be called."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


def _sharded(whole: _Whole, units: Sequence[nn.Module], precision: Precision) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next(whole.parameters()).device.type
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    # Frozen parameters have no gradient and no optimizer state, which is most of what there is to save.
    frozen = {parameter for parameter in whole.parameters() if not parameter.requires_grad}
    # Layers are sent in bf16, half the bytes, instead of being cast after they were sent; sums along the layers stay in
    # fp32. Embeddings, heads and losses have weights in fp32, as every worker of ddp has.
    bf16 = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    policy = bf16 if precision == "bf16" else MixedPrecisionPolicy()
    for unit in units:
        fully_shard(unit, mesh=mesh, mp_policy=policy, ignored_params=frozen)
    fully_shard(whole, mesh=mesh, ignored_params=frozen)
    return whole


def _reshard(sharded: nn.Module | None) -> None:
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(sharded, FSDPModule)
    sharded.reshard()
