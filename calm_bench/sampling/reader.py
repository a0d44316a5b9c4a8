"""Texts of unequal lengths read together, chunk by chunk, with a key-value cache.

Shape letters: R rows, r rows that are still asked for, K tokens of a chunk, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from calm_bench.lm.base import ChunkLanguageModel
from calm_bench.lm.cache import Cache
from calm_bench.lm.fixed_cache import FixedCache
from calm_bench.lm.fused import FusedBackbone
from calm_bench.sampling.recorded import Recorded


class Reader:
    """The state of a batch of texts; shorter ones are padded in front, where nothing attends.

    Positions count from each text's own start, so a row's hidden states are those it would have alone.
    """

    def __init__(
        self,
        model: ChunkLanguageModel,
        texts: Sequence[Sequence[int]],
        more: int | None = None,
        fused: FusedBackbone | None = None,
    ) -> None:
        """Read whole chunks, at least one of each text.

        Args:
            more: chunks of each row that are read later, at the most. Where it is known, a GPU does every step by the
                same operations (:mod:`calm_bench.lm.fixed_cache`).
            fused: reads in place of the model's own backbone.
        """
        device = next(model.parameters()).device
        longest = max(len(text) for text in texts)
        padding = [longest - len(text) for text in texts]
        tokens = torch.tensor([[0] * pad + list(text) for pad, text in zip(padding, texts, strict=True)], device=device)
        num_chunks = longest // model.chunk_size
        start = torch.tensor(padding, device=device)[:, None] // model.chunk_size
        index = torch.arange(num_chunks, device=device)
        # Without padding, attention needs no mask, which is its fast case.
        mask = index >= start if any(padding) else None
        positions = (index - start).clamp_min(0)
        cache = model.new_cache(None if more is None or device.type == "cpu" else num_chunks + more)
        cache.fused = fused
        self.hidden = model.read(tokens, positions, cache, mask)[:, -1]
        following = num_chunks - start  # [R, 1]
        self._steps: _GrowingSteps | _FixedSteps
        if isinstance(cache, FixedCache):
            self._steps = _FixedSteps(model, cache, following)
        else:
            self._steps = _GrowingSteps(model, cache, following, mask)

    def read(self, chunks: Tensor) -> None:
        """Go on by one chunk per row: Long [r, K]. Afterwards ``hidden`` [r, d] has read it."""
        self.hidden = self._steps.read(chunks)

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these. One may be asked for several times where ``more`` is unset."""
        index = torch.tensor(rows, device=self.hidden.device)
        self.hidden = self.hidden[index]
        self._steps.keep(index)


class _GrowingSteps:
    """Steps over a cache that grows with the texts."""

    def __init__(self, model: ChunkLanguageModel, cache: Cache, following: Tensor, mask: Tensor | None) -> None:
        """
        Args:
            following: Long [R, 1], the position of each row's next chunk.
            mask: Bool [R, L], false at padding; unset where there is none.
        """
        self._model, self._cache, self._next, self._mask = model, cache, following, mask

    def read(self, chunks: Tensor) -> Tensor:
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones((len(chunks), 1))], dim=1)
        hidden = self._model.read(chunks, self._next, self._cache, self._mask)[:, -1]
        self._next = self._next + 1
        return hidden

    def keep(self, rows: Tensor) -> None:
        self._cache.keep(rows)
        self._next = self._next[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]


class _FixedSteps:
    """Steps of one shape.

    A row that is no longer asked for is read on, with whatever tokens, until half of the rows are such: so the shape
    changes a few times in a generation and not at the end of every text.
    """

    def __init__(self, model: ChunkLanguageModel, cache: FixedCache, following: Tensor) -> None:
        """
        Args:
            following: as of :class:`_GrowingSteps`.
        """
        self._model, self._cache, self._next = model, cache, following
        self._asked: Tensor | None = None
        """Long [r], those of the R rows that are still asked for; unset means all."""
        self._step = self._recorded()

    def read(self, chunks: Tensor) -> Tensor:
        if self._asked is None:
            return self._step(chunks)
        every = chunks.new_zeros((len(self._next), chunks.shape[1]))
        every[self._asked] = chunks
        return self._step(every)[self._asked]

    def keep(self, rows: Tensor) -> None:
        rows = rows if self._asked is None else self._asked[rows]
        if len(self._next) // 2 < len(rows) < len(self._next):
            self._asked = rows
            return
        self._cache.keep(rows)
        self._next, self._asked = self._next[rows], None
        self._step = self._recorded()

    def _recorded(self) -> Recorded:
        # No method of this object's, which would then hold itself: a GPU's memory would be held until Python looks for
        # such circles, which it does for want of its own memory, not of a GPU's.
        return Recorded(partial(_step, self._model, self._cache, self._next))


def _step(model: ChunkLanguageModel, cache: FixedCache, following: Tensor, chunks: Tensor) -> Tensor:
    hidden = model.read(chunks, following, cache)[:, -1]
    following += 1  # where it is, since a recorded step reads the same memory every time
    return hidden
