"""Texts of unequal lengths read together, chunk by chunk, with a key-value cache.

Shape letters: R rows, K tokens of a chunk, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from calm_bench.lm.base import ChunkLanguageModel


class Reader:
    """The state of a batch of texts; shorter ones are padded in front, where nothing attends.

    Positions count from each text's own start, so a row's hidden states are those it would have alone.
    """

    def __init__(self, model: ChunkLanguageModel, texts: Sequence[Sequence[int]]) -> None:
        """Read whole chunks, at least one of each text."""
        self._model = model
        self._cache = model.new_cache()
        device = next(model.parameters()).device
        longest = max(len(text) for text in texts)
        padding = [longest - len(text) for text in texts]
        tokens = torch.tensor([[0] * pad + list(text) for pad, text in zip(padding, texts, strict=True)], device=device)
        num_chunks = longest // model.chunk_size
        start = torch.tensor(padding, device=device)[:, None] // model.chunk_size
        index = torch.arange(num_chunks, device=device)
        # Without padding, attention needs no mask, which is its fast case.
        self._mask = index >= start if any(padding) else None
        self._next = num_chunks - start  # [R, 1]
        positions = (index - start).clamp_min(0)
        self.hidden = model.read(tokens, positions, self._cache, self._mask)[:, -1]

    def read(self, chunks: Tensor) -> None:
        """Go on by one chunk per row: Long [R, K]. Afterwards ``hidden`` [R, d] has read it."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones((len(chunks), 1))], dim=1)
        self.hidden = self._model.read(chunks, self._next, self._cache, self._mask)[:, -1]
        self._next = self._next + 1

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        index = torch.tensor(rows, device=self.hidden.device)
        self._cache.keep(index)
        self.hidden, self._next = self.hidden[index], self._next[index]
        if self._mask is not None:
            self._mask = self._mask[index]
