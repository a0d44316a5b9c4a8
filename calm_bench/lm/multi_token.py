"""A chunk backbone with K softmaxes on one hidden state, independent of each other given it (arXiv 2404.19737).

The authors' heads are layers on a common trunk with one unembedding; here each head is a residual SwiGLU block, since
what a chunk is drawn from must be the hidden state alone. What the model cannot express is dependence inside a chunk.

Shape legend: R rows (hidden states), K tokens of a chunk, d hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.lm.backbone import RMSNorm, SwiGLU
from calm_bench.lm.chunked import ChunkInput, start
from calm_bench.lm.exact import ChunkState, ExactModel
from calm_bench.regions import region


class TokenHead(nn.Module):
    """What one token's softmax reads: RMSNorm(x + SwiGLU(RMSNorm(x)))."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        d, eps = config.hidden_size, config.rms_norm_eps
        self.before, self.mlp, self.after = RMSNorm(d, eps), SwiGLU(d, config.intermediate_size), RMSNorm(d, eps)

    @region
    def forward(self, hidden: Tensor) -> Tensor:
        """[R, d] -> [R, d]."""
        out: Tensor = self.after(hidden + self.mlp(self.before(hidden)))
        return out


class MultiTokenModel(ExactModel):
    """The backbone over chunks and a head for each of their tokens."""

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        scale = self.backbone.initializer_range
        self.input_projection = ChunkInput(config, scale)
        self.head = nn.ModuleList(TokenHead(config) for _ in range(config.chunk_size))
        start(self.head, scale)
        self.lm_head = nn.Linear(config.hidden_size, vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=scale)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.input_projection.read(self.backbone, tokens, self.chunk_size)

    def features(self, hidden: Tensor, chunks: Tensor) -> Tensor:
        return torch.stack([head(hidden) for head in self.head], dim=1)

    def begin(self, hidden: Tensor) -> ChunkState:
        return (self.features(hidden, hidden),)

    def feature(self, state: ChunkState) -> Tensor:
        return state[0][:, 0]

    def advance(self, state: ChunkState, tokens: Tensor) -> ChunkState:
        return (state[0][:, 1:],)
