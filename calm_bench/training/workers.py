"""Several processes that train one model: who computes what, and how their gradients become one.

The step is that of one process, whatever the number of workers: the same batch, the same noise for each of its rows,
and gradients that are summed in another order only. So the number of workers is no part of what a training is.

Micro-batches are dealt out whole where every worker gets as many; otherwise the workers share the rows of each, and
its noise (:mod:`calm_bench.row_noise`). Validation is dealt out alike. What follows from the weights alone (its scores,
the decision to stop) is known to all workers; only the first one writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar

from torch import Generator, Tensor, nn

from calm_bench.arithmetic import Precision
from calm_bench.row_noise import RowNoise, Rows
from calm_bench.seeding import derive, generator

P = ParamSpec("P")
T = TypeVar("T")
Strategy = Literal["ddp", "fsdp"]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Share:
    """What one worker computes of one micro-batch."""

    index: int
    """Place of the micro-batch within the step."""
    tokens: Tensor
    """[rows, L]; before they are read, their numbers [rows] in the batch."""
    rows: Rows
    counts: bool = True
    """False where it is computed only because other workers, who have one more, cannot do without this one."""
    workers: int = 1
    """How many workers have rows of the micro-batch."""
    is_piece: bool = False
    """Whether it is a part of a worker's rows, computed by itself for want of memory."""

    @property
    def fraction(self) -> float:
        """Its weight in the mean over the micro-batch."""
        return self.rows.count / self.rows.total if self.counts else 0.0


class Workers(ABC):
    """The processes of one training, seen from one of them."""

    rank: int
    size: int
    strategy: Strategy
    """What each holds of a language model."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @abstractmethod
    def prepare(
        self, module: nn.Module, units: Sequence[nn.Module], skips_parameters: bool, precision: Precision = "fp32"
    ) -> None:
        """Get ready to train ``module``, whose parameters may be others afterwards.

        Args:
            precision: of matrix products; parts of a divided model are sent in it, their gradients summed in fp32.
            units: parts that are called one after the other, so that only one of them needs to be whole at a time.
            skips_parameters: whether a step may leave parameters without a gradient.
        """

    @abstractmethod
    def shares(self, batch: Tensor, parts: int, by_rows: bool) -> list[Share]:
        """What this worker computes of ``batch`` [B, ...] in ``parts`` micro-batches.

        Args:
            batch: tokens, or the numbers of the rows that are to be read.
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
    strategy: Strategy = "ddp"

    def prepare(
        self, module: nn.Module, units: Sequence[nn.Module], skips_parameters: bool, precision: Precision = "fp32"
    ) -> None:
        pass

    def shares(self, batch: Tensor, parts: int, by_rows: bool) -> list[Share]:
        return whole_shares(batch, parts)

    def scored(self, held_out: Sequence[Tensor], parts: int, by_rows: bool) -> list[Share]:
        return each_whole(held_out)

    def sums(self, own: Sequence[float]) -> list[float]:
        return list(own)

    def noise(self, share: Share, seed: int, step: int, device: str) -> Generator:
        return noise_of(share, own_rows, seed, step, device)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    evaluate = call

    def last(self, is_last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def totals(self, terms: Sequence[tuple[Share, Terms]], parts: int) -> list[tuple[Terms, int]]:
        # The pieces of a micro-batch make one mean.
        sums: dict[int, Terms] = {}
        for share, each in terms:
            before = sums.get(share.index)
            own = {name: share.fraction * value for name, value in each.items()}
            sums[share.index] = own if before is None else {name: before[name] + own[name] for name in own}
        return [(each, 1) for each in sums.values()]

    def any(self, flag: bool) -> bool:
        return flag

    def told(self, number: int) -> int:
        return number


def whole_shares(batch: Tensor, parts: int) -> list[Share]:
    """``batch`` [B, ...] in ``parts`` micro-batches, each with all of its rows."""
    return each_whole(batch.chunk(parts))


def each_whole(micro_batches: Sequence[Tensor]) -> list[Share]:
    """Each micro-batch [rows, ...] with all of its rows."""
    return [Share(index, tokens, Rows(0, len(tokens), len(tokens))) for index, tokens in enumerate(micro_batches)]


def noise_of(share: Share, gather: Callable[[Tensor], Tensor], seed: int, step: int, device: str) -> Generator:
    """The random numbers of ``share`` in ``step``, as :meth:`Workers.noise`.

    Args:
        gather: as of :class:`calm_bench.row_noise.RowNoise`, where the share is no whole micro-batch.
    """
    if share.rows.count == share.rows.total:
        return generator(seed, "noise", step, share.index, device=device)
    return RowNoise(share.rows, gather, device).manual_seed(derive(seed, "noise", step, share.index))


def own_rows(rows: Tensor) -> Tensor:
    """What is known of other rows where nobody else is at them: nothing."""
    return rows
