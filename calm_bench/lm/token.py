"""The baseline: one token a step, softmax and cross-entropy."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor, nn

from calm_bench import blockwise
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm.exact import ChunkState, ExactModel


class TokenModel(ExactModel):
    """Llama-style decoder with an output projection of its own (untied, as the paper's Transformer)."""

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.chunk_size = 1
        self.lm_head = nn.Linear(config.hidden_size, vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=self.backbone.initializer_range)

    def embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.backbone.embed_tokens(tokens)
        return embedded

    def features(self, hidden: Tensor, chunks: Tensor) -> Tensor:
        return hidden.unsqueeze(1)

    def begin(self, hidden: Tensor) -> ChunkState:
        return (hidden,)

    def feature(self, state: ChunkState) -> Tensor:
        return state[0]

    def advance(self, state: ChunkState, tokens: Tensor) -> ChunkState:
        raise NotImplementedError("a token model's chunk has one token")

    def probabilities(self, hidden: Tensor) -> Tensor:
        """Exact distribution of the next token: [..., d] -> [..., V], fp32."""
        return self.next_probabilities(self.begin(hidden))

    def loss(self, tokens: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = self.hidden_states(tokens[:, :-1])
        loss = blockwise.cross_entropy(hidden.flatten(0, 1), self.lm_head.weight, tokens[:, 1:].flatten())
        return loss, {"cross_entropy": loss.detach()}

    def description(self) -> dict[str, Any]:
        described = super().description()
        del described["model"]["head"]
        return described
