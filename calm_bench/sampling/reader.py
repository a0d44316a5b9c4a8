"""Texts of unequal lengths read together, chunk by chunk, with a key-value cache.

Shape letters: R rows, K tokens of a chunk, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from calm_bench.lm.base import ChunkLanguageModel


class Reader:
    """The state of a batch of texts; shorter ones are padded in front, where nothing attends.

    Positions count from each text's own start, so a row's hidden states are those it would have alone.
    """

    def __init__(self, model: ChunkLanguageModel, texts: Sequence[Sequence[int]]) -> None:
        """Read whole chunks, at least one of each text."""
        self._model = model
        self._cache = DynamicCache(config=model.backbone.config)
        device = next(model.parameters()).device
        longest = max(len(text) for text in texts)
        padding = [longest - len(text) for text in texts]
        tokens = torch.tensor([[0] * pad + list(text) for pad, text in zip(padding, texts, strict=True)], device=device)
        num_chunks = longest // model.chunk_size
        start = torch.tensor(padding, device=device)[:, None] // model.chunk_size
        index = torch.arange(num_chunks, device=device)
        # Without padding, attention needs no mask, which is its fast case.
        self._mask = (index >= start).long() if any(padding) else None
        self._next = num_chunks - start  # [R, 1]
        self.hidden = self._read_all(tokens, (index - start).clamp_min(0))

    def read(self, chunks: Tensor) -> None:
        """Go on by one chunk per row: Long [R, K]. Afterwards ``hidden`` [R, d] has read it."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones((len(chunks), 1))], dim=1)
        inputs = self._model.embed(chunks).squeeze(1)
        self.hidden = self._model.read_step(inputs, self._next, self._cache, self._mask)
        self._next = self._next + 1

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        index = torch.tensor(rows, device=self.hidden.device)
        self._cache.batch_select_indices(index)
        self.hidden, self._next = self.hidden[index], self._next[index]
        if self._mask is not None:
            self._mask = self._mask[index]

    def _read_all(self, tokens: Tensor, positions: Tensor) -> Tensor:
        output = self._model.backbone(
            inputs_embeds=self._model.embed(tokens),
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state[:, -1]
        return hidden
