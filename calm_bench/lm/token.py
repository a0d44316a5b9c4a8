"""The baseline: one token a step, softmax and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from calm_bench import blockwise
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm.base import ChunkLanguageModel


class TokenModel(ChunkLanguageModel):
    """Llama-style decoder with an output projection of its own (untied, as the paper's Transformer)."""

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.lm_head = nn.Linear(config.hidden_size, vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=self.backbone.config.initializer_range)

    def embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.backbone.embed_tokens(tokens)
        return embedded

    def probabilities(self, hidden: Tensor) -> Tensor:
        """Exact distribution of the next token: [..., d] -> [..., V], fp32."""
        return self.lm_head(hidden).float().softmax(dim=-1)  # type: ignore[no-any-return]

    def draw(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        flat = hidden.reshape(-1, hidden.shape[-1])
        rows = max(1, blockwise.MAX_LOGITS // self.vocab_size)
        drawn = [
            torch.multinomial(self.probabilities(block), num_samples, replacement=True, generator=generator)
            for block in flat.split(rows)
        ]
        return torch.cat(drawn).T.reshape(num_samples, *hidden.shape[:-1], 1)

    def draw_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        return draw_tokens(self.probabilities(hidden), num_samples, generators)

    def loss(self, tokens: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = self.hidden_states(tokens[:, :-1])
        loss = blockwise.cross_entropy(hidden.flatten(0, 1), self.lm_head.weight, tokens[:, 1:].flatten())
        return loss, {"cross_entropy": loss.detach()}

    def description(self) -> dict[str, Any]:
        return {
            "model_type": "calm_bench_token",
            "vocab_size": self.vocab_size,
            "model": self.config.model_dump(mode="json", exclude={"training", "head"}),
        }


def draw_tokens(probabilities: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
    """Samples of every row's distribution from the row's own generator: [R, V] -> ids [num_samples, R, 1]."""
    rows = zip(probabilities.split(1), generators, strict=True)
    drawn = [torch.multinomial(row, num_samples, replacement=True, generator=generator) for row, generator in rows]
    return torch.cat(drawn).T.unsqueeze(-1)
