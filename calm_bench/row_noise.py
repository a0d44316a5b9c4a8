"""Noise for some of a batch's rows: the very numbers that they get where one process has all rows.

Workers that share a micro-batch must not change what is learnt, so each draws the noise of the whole and keeps its
own rows. That costs every worker the random numbers of all, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Rows:
    """Rows ``start`` to before ``stop`` of ``total``."""

    start: int
    stop: int
    total: int

    @property
    def count(self) -> int:
        return self.stop - self.start


class RowNoise(Generator):
    """A generator that knows which rows it serves; :func:`draw` and :func:`all_rows` heed it.

    Handed on wherever a generator is, so that what draws need not be told of other workers.
    """

    rows: Rows
    gather: Callable[[Tensor], Tensor]
    """The tensors of all workers, in the order of their rows: [own, ...] -> [all, ...]."""

    def __new__(cls, rows: Rows, gather: Callable[[Tensor], Tensor], device: str | torch.device = "cpu") -> Self:
        self = super().__new__(cls, device)  # type: ignore[call-arg]
        self.rows, self.gather = rows, gather
        return self


def draw(
    kind: Callable[..., Tensor],
    shape: Sequence[int],
    dim: int,
    generator: Generator | None,
    device: torch.device | str,
) -> Tensor:
    """``kind(shape)`` from ``generator``: of the whole micro-batch, cut down to the generator's rows.

    Args:
        kind: ``torch.randn`` or another that takes ``generator`` and ``device``.
        shape: of what is wanted here.
        dim: the dimension of the rows, or of the same number of positions of each row, row by row.
        generator: any but a :class:`RowNoise` is asked for ``shape`` and no more.
    """
    if not isinstance(generator, RowNoise):
        return kind(tuple(shape), generator=generator, device=device)
    rows, size = generator.rows, list(shape)
    each, rest = divmod(size[dim], rows.count)
    if rest:
        raise ValueError(f"{size[dim]} positions are not a whole number for each of {rows.count} rows")
    size[dim] = each * rows.total
    whole = kind(tuple(size), generator=generator, device=device)
    # A copy, so that the rows of others are let go.
    return whole.narrow(dim, each * rows.start, each * rows.count).clone(memory_format=torch.contiguous_format)


def all_rows(generator: Generator | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors of all rows, [own, ...] -> [all, ...] in fp32, for what compares rows; not differentiable."""
    if not isinstance(generator, RowNoise):
        return tensors
    widths = [tensor.shape[-1] for tensor in tensors]
    gathered = generator.gather(torch.cat([tensor.detach().float() for tensor in tensors], dim=-1))
    split: tuple[Tensor, ...] = gathered.split(widths, dim=-1)
    return split
