"""Several processes that train one model: who computes what, and how their gradients become one.

The step is that of one process, whatever the number of workers: the same batch, the same noise for each of its rows,
and gradients that are summed in another order only. So the number of workers is no part of what a training is.

Micro-batches are dealt out whole where every worker gets as many; otherwise the workers share the rows of each, and
its noise (:mod:`calm_bench.row_noise`). Validation is dealt out alike. What follows from the weights alone (its scores,
the decision to stop) is known to all workers; only the first one writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from calm_bench.errors import UsageError
from calm_bench.row_noise import RowNoise, Rows
from calm_bench.seeding import derive, generator

P = ParamSpec("P")
T = TypeVar("T")
Strategy = Literal["ddp", "fsdp"]
Terms = dict[str, Tensor]


class CannotShare(UsageError, ValueError):
    """A step's batch cannot be divided among the workers; the message says what to change."""


@dataclass(frozen=True)
class Share:
    """What one worker computes of one micro-batch."""

    index: int
    """Place of the micro-batch within the step."""
    tokens: Tensor
    """[rows, L]."""
    rows: Rows
    counts: bool = True
    """False where it is computed only because other workers, who have one more, cannot do without this one."""

    @property
    def fraction(self) -> float:
        return self.rows.count / self.rows.total


class Workers(ABC):
    """The processes of one training, seen from one of them."""

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @abstractmethod
    def prepare(self, module: nn.Module, units: Sequence[nn.Module], skips_parameters: bool) -> None:
        """Get ready to train ``module``, whose parameters may be others afterwards.

        Args:
            units: parts that are called one after the other, so that only one of them needs to be whole at a time.
            skips_parameters: whether a step may leave parameters without a gradient.
        """

    @abstractmethod
    def shares(self, batch: Tensor, parts: int, by_rows: bool) -> list[Share]:
        """What this worker computes of ``batch`` [B, L] in ``parts`` micro-batches.

        Args:
            by_rows: whether a micro-batch may be divided.

        Raises:
            CannotShare: there are not enough rows, or micro-batches, for all workers.
        """

    @abstractmethod
    def scored(self, held_out: Sequence[Tensor], parts: int, by_rows: bool) -> list[Share]:
        """What this worker scores of micro-batches of held-out text, dealt out as those of a step in ``parts`` are.

        Every worker has as many: what there is no more of is scored again, as none of its rows.
        """

    @abstractmethod
    def sums(self, own: Sequence[float]) -> list[float]:
        """Sums over all workers, who must all ask."""

    @abstractmethod
    def noise(self, share: Share, seed: int, step: int, device: str) -> Generator:
        """The random numbers of ``share`` in ``step``."""

    @abstractmethod
    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function``, which calls the prepared module, with gradients that :meth:`last` makes everybody's."""

    @abstractmethod
    def evaluate(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same without gradients; every worker must call it."""

    @abstractmethod
    def last(self, is_last: bool) -> AbstractContextManager[object]:
        """Around the loss of one share and its backward pass: after the last, gradients are averaged over the workers.

        A mean over workers is wanted to be a sum over shares, so losses are to be multiplied by :attr:`size`.
        """

    @abstractmethod
    def totals(self, terms: Sequence[tuple[Share, Terms]], parts: int) -> list[tuple[Terms, int]]:
        """Terms of this worker's shares to terms of the whole step, each with the micro-batches it is the sum of."""

    @abstractmethod
    def any(self, flag: bool) -> bool:
        """Whether some worker says so; the same answer for all, who must all ask."""

    @abstractmethod
    def told(self, number: int) -> int:
        """What the first worker has as ``number``."""


class SingleProcess(Workers):
    """One process that does everything."""

    rank, size = 0, 1

    def prepare(self, module: nn.Module, units: Sequence[nn.Module], skips_parameters: bool) -> None:
        pass

    def shares(self, batch: Tensor, parts: int, by_rows: bool) -> list[Share]:
        return _whole(batch, parts)

    def scored(self, held_out: Sequence[Tensor], parts: int, by_rows: bool) -> list[Share]:
        return _each_whole(held_out)

    def sums(self, own: Sequence[float]) -> list[float]:
        return list(own)

    def noise(self, share: Share, seed: int, step: int, device: str) -> Generator:
        return generator(seed, "noise", step, share.index, device=device)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    evaluate = call

    def last(self, is_last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def totals(self, terms: Sequence[tuple[Share, Terms]], parts: int) -> list[tuple[Terms, int]]:
        return [(each, 1) for _, each in terms]

    def any(self, flag: bool) -> bool:
        return flag

    def told(self, number: int) -> int:
        return number


class DistributedGroup(Workers):
    """One of several processes, in the default process group of ``torch.distributed``.

    The group must serve tensors on the CPU beside those on the training's device (``cpu:gloo,cuda:nccl``), so that
    what the hosts agree on does not wait for the GPUs.
    """

    def __init__(self, strategy: Strategy = "ddp") -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._strategy = strategy
        self._wrapped: nn.Module | None = None

    def prepare(self, module: nn.Module, units: Sequence[nn.Module], skips_parameters: bool) -> None:
        whole = _Whole(module)
        if self._strategy == "fsdp" and units:
            self._wrapped = _sharded(whole, units)
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
        micro_batches = _whole(batch, parts)
        if parts % self.size == 0:
            return micro_batches[self.rank :: self.size]
        rows = len(batch) // parts
        if not by_rows:
            raise CannotShare(
                f"{self.size} workers cannot share {parts} micro-batches whole, and this model's head draws noise that "
                f"cannot be shared by rows: set model.training.gradient_accumulation to a multiple of {self.size}, or "
                "let the head draw by calm_bench.row_noise.draw and say so (Head.draws_by_rows)"
            )
        if rows < self.size:
            raise CannotShare(
                f"{self.size} workers cannot share micro-batches of {rows} sequences: lower execution.workers or "
                "raise its batch_size (in model.training or autoencoder.training)"
            )
        return [self._of(whole) for whole in micro_batches]

    def scored(self, held_out: Sequence[Tensor], parts: int, by_rows: bool) -> list[Share]:
        micro_batches = _each_whole(held_out)
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
        if share.rows.count == share.rows.total:
            return generator(seed, "noise", step, share.index, device=device)
        noise = RowNoise(share.rows, partial(self._gather, rows=share.rows), device)
        return noise.manual_seed(derive(seed, "noise", step, share.index))

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
        own = torch.stack(
            [sum((share.fraction * each[name].float() for share, each in terms), torch.zeros(())) for name in names]
        )
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
        return Share(whole.index, whole.tokens[own.start : own.stop], own)

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


def _whole(batch: Tensor, parts: int) -> list[Share]:
    return _each_whole(batch.chunk(parts))


def _each_whole(micro_batches: Sequence[Tensor]) -> list[Share]:
    return [Share(index, tokens, Rows(0, len(tokens), len(tokens))) for index, tokens in enumerate(micro_batches)]


def _sharded(whole: _Whole, units: Sequence[nn.Module]) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(whole.parameters()).device.type
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    # What is not trained has no gradient and no optimizer state, which is most of what there is to save.
    frozen = {parameter for parameter in whole.parameters() if not parameter.requires_grad}
    for unit in units:
        fully_shard(unit, mesh=mesh, ignored_params=frozen)
    fully_shard(whole, mesh=mesh, ignored_params=frozen)
    return whole


def _reshard(sharded: nn.Module | None) -> None:
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(sharded, FSDPModule)
    sharded.reshard()
