"""Random numbers of continuations: which of them a sample gets does not depend on what became of other samples.

A window's generator is asked only once, for the seeds of its *units*: runs of at most ``UNIT_SAMPLES`` samples at
consecutive positions. At each chunk of the continuations a unit has a fresh generator of its own seed, and draws for
all of its samples, those that were stopped included. So a sample's numbers are a function of the window's generator,
the sample's place, the chunk, and the numbers of positions and samples, and units can be computed in any order or
together.

Shape letters: W windows, P positions, S samples, u positions of a unit, Q samples that go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from calm_bench.heads.noise import Noise, Sampler

UNIT_SAMPLES = 256
"""More, and numbers are drawn in vain for more samples; fewer, and there are more generators."""
_SEEDS = (1 << 63) - 1


class Units:
    """The units of a batch of windows."""

    def __init__(self, generators: Sequence[Generator], num_positions: int, num_samples: int, num_chunks: int) -> None:
        """Asks every window's generator once."""
        self.positions = max(1, UNIT_SAMPLES // num_samples)
        """Positions of each unit; the last one may have fewer."""
        self._num_positions, self._num_samples = num_positions, num_samples
        self._device = generators[0].device
        size = (-(-num_positions // self.positions), num_chunks)
        seeds = [torch.randint(_SEEDS, size, generator=own, device=self._device) for own in generators]
        self._seeds: list[list[list[int]]] = torch.stack(seeds).tolist()

    def noise(self, block: slice, chunk: int, chosen: Tensor | None = None) -> Noise:
        """For the positions ``block``, which begins where a unit does, and the given chunk of their continuations.

        Args:
            chosen: Long [Q], samples among the block's W x p x S; None for all, in the order [S, W x p].
        """
        units = range(block.start // self.positions, -(-block.stop // self.positions))
        generators = [
            [Generator(self._device).manual_seed(seeds[unit][chunk]) for unit in units] for seeds in self._seeds
        ]
        sizes = [min(self.positions, block.stop - unit * self.positions) for unit in units]
        return _WindowNoise(generators, sizes, self._num_samples, chosen)


class _WindowNoise(Noise):
    def __init__(
        self, generators: list[list[Generator]], sizes: list[int], num_samples: int, chosen: Tensor | None
    ) -> None:
        self._generators, self._sizes, self._num_samples, self._chosen = generators, sizes, num_samples, chosen
        self._device = generators[0][0].device

    def _drawn(self, kind: Callable[..., Tensor], width: int) -> Tensor:
        windows = [
            torch.cat(
                [
                    kind((size, self._num_samples, width), generator=own, device=self._device)
                    for own, size in zip(units, self._sizes, strict=True)
                ]
            )
            for units in self._generators
        ]
        drawn = torch.stack(windows).flatten(0, 1)  # [W x p, S, width]
        return drawn.transpose(0, 1) if self._chosen is None else drawn.flatten(0, 1)[self._chosen]

    def through(self, sample: Sampler, hidden: Tensor) -> Tensor:
        """A head that draws by itself also computes the samples that are not wanted, from zeros."""
        shape = (len(self._generators), sum(self._sizes))
        if self._chosen is None:
            every = [
                [
                    sample(own, self._num_samples, generator)
                    for own, generator in zip(window.split(self._sizes), units, strict=True)
                ]
                for window, units in zip(hidden.unflatten(0, shape), self._generators, strict=True)
            ]
            return torch.cat([torch.cat(units, dim=1) for units in every], dim=1)
        filled = hidden.new_zeros((shape[0] * shape[1] * self._num_samples, hidden.shape[-1]))
        filled[self._chosen] = hidden
        parts = [
            sample(own, 1, generator)[0]
            for window, units in zip(filled.unflatten(0, (*shape, -1)), self._generators, strict=True)
            for own, generator in zip(window.split(self._sizes), units, strict=True)
        ]
        return torch.cat(parts).flatten(0, 1)[self._chosen]
