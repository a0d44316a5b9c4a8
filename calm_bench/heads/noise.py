"""Where the random numbers of samples come from.

A sample of a head is a function of a hidden state and of numbers that it asks for: ``noise.normal(width)`` gives every
sample of the batch its own ``width`` normals. Whether they come from one generator or from one for every row is the
source's affair, so the network sees all rows at once either way.

Shape letters: S samples, R rows, Z latent size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from calm_bench.row_noise import draw

Sampler = Callable[[Tensor, int, Generator | None], Tensor]
""":meth:`calm_bench.heads.base.Head.sample`."""


class Noise(ABC):
    """Random numbers of a batch of samples; every call gives fresh ones, in fp32.

    bf16 would not do: it has 256 values between one power of two and the next, so independent draws would coincide.
    """

    def uniform(self, width: int) -> Tensor:
        """In [0, 1): [..., width] with the dimensions of the batch before."""
        return self._drawn(torch.rand, width)

    def normal(self, width: int) -> Tensor:
        """Standard normals: [..., width]."""
        return self._drawn(torch.randn, width)

    @abstractmethod
    def through(self, sample: Sampler, hidden: Tensor) -> Tensor:
        """Samples of a head that asks a generator by itself: the generators' samples in the batch's dimensions."""

    @abstractmethod
    def _drawn(self, kind: Callable[..., Tensor], width: int) -> Tensor: ...


class OneSource(Noise):
    """All samples from one generator, torch's global one if it is None: [S, ..., width]."""

    def __init__(self, hidden: Tensor, num_samples: int, generator: Generator | None) -> None:
        """For ``num_samples`` of each state of ``hidden`` [..., d]."""
        self._shape, self._device = (num_samples, *hidden.shape[:-1]), hidden.device
        self._generator = generator

    def through(self, sample: Sampler, hidden: Tensor) -> Tensor:
        return sample(hidden, self._shape[0], self._generator)

    def _drawn(self, kind: Callable[..., Tensor], width: int) -> Tensor:
        return draw(kind, (*self._shape, width), 1, self._generator, self._device)


class RowSources(Noise):
    """Every row's samples from a generator of its own: [S, R, width], row r's as if it were alone."""

    def __init__(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> None:
        """For ``num_samples`` of each row of ``hidden`` [R, d].

        Raises:
            ValueError: not one generator per row.
        """
        if len(hidden) != len(generators):
            raise ValueError(f"{len(hidden)} rows need as many generators, found {len(generators)}")
        self._num_samples, self._generators, self._device = num_samples, generators, hidden.device

    def through(self, sample: Sampler, hidden: Tensor) -> Tensor:
        rows = zip(hidden, self._generators, strict=True)
        return torch.stack([sample(row, self._num_samples, generator) for row, generator in rows], dim=1)

    def _drawn(self, kind: Callable[..., Tensor], width: int) -> Tensor:
        size = (self._num_samples, width)
        return torch.stack([kind(size, generator=own, device=self._device) for own in self._generators], dim=1)
