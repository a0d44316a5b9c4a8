"""The baseline: one token a step, softmax and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from calm_bench import blockwise
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.heads.noise import Noise, RowSources
from calm_bench.lm.base import ChunkLanguageModel, require_finite


class TokenModel(ChunkLanguageModel):
    """Llama-style decoder with an output projection of its own (untied, as the paper's Transformer)."""

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.lm_head = nn.Linear(config.hidden_size, vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=self.backbone.initializer_range)

    def embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.backbone.embed_tokens(tokens)
        return embedded

    def probabilities(self, hidden: Tensor) -> Tensor:
        """Exact distribution of the next token: [..., d] -> [..., V], fp32."""
        return self.lm_head(hidden).float().softmax(dim=-1)  # type: ignore[no-any-return]

    def log_probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Logarithms of :meth:`probabilities` at ``tokens``: [R, d], [R] -> [R], fp32; a block of rows at a time."""
        return blockwise.log_probabilities_and_argmax(hidden, self.lm_head.weight, tokens)[0]

    def draw_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        uniform = noise.uniform(1).squeeze(-1)  # [S, ...]
        drawn = self._draw(hidden.reshape(-1, hidden.shape[-1]), uniform.reshape(len(uniform), -1).T)
        return drawn.T.reshape(*uniform.shape, 1)

    def draw_each(self, hidden: Tensor, state: Tensor, noise: Noise) -> Tensor:
        # A state's distribution is computed once for all samples that share it: they become its row's columns.
        order = state.argsort(stable=True)
        count = torch.bincount(state, minlength=len(hidden))
        place = torch.empty_like(state)
        place[order] = torch.arange(len(state), device=state.device) - (count.cumsum(0) - count)[state[order]]
        uniform = hidden.new_zeros((len(hidden), int(count.max())), dtype=torch.float32)
        uniform[state, place] = noise.uniform(1).squeeze(-1)
        return self._draw(hidden, uniform)[state, place].unsqueeze(-1)

    def _draw(self, hidden: Tensor, uniform: Tensor) -> Tensor:
        """Tokens that the numbers in [0, 1) select: [R, d] and [R, S] -> ids [R, S], a block of rows at a time."""
        rows = blockwise.decoding_rows(self.lm_head.weight)
        blocks = zip(hidden.split(rows), uniform.split(rows), strict=True)
        return torch.cat([select_tokens(self.lm_head(states), numbers) for states, numbers in blocks])

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


def select_tokens(logits: Tensor, uniform: Tensor) -> Tensor:
    """The tokens at which the cumulative distribution of ``softmax(logits)`` passes ``uniform``.

    Args:
        logits: [R, V].
        uniform: [R, S], in [0, 1).

    Returns:
        ids [R, S].

    Raises:
        NotFinite: a logit is NaN or infinite.
    """
    cumulative = logits.float().softmax(dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    require_finite(total, "logits")
    # Rounding must not select what follows the last token that has a probability.
    last = torch.searchsorted(cumulative, total)
    return torch.searchsorted(cumulative, (uniform * total).contiguous(), right=True).minimum(last)


def draw_tokens(logits: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
    """Samples of every row's distribution from the row's own generator: [R, V] -> ids [num_samples, R, 1]."""
    uniform = RowSources(logits, num_samples, generators).uniform(1).squeeze(-1)
    return select_tokens(logits, uniform.T).T.unsqueeze(-1)
