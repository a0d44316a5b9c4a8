"""CALM: predict the next chunk's latent instead of the next token (paper section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.heads import HEADS
from calm_bench.heads.energy import EnergyHead
from calm_bench.lm.base import ChunkLanguageModel, chunks_of

LAYER_NORM_EPS = 1e-6


@runtime_checkable
class RowHead(Protocol):
    """A head that can draw a whole batch although every row has a generator of its own."""

    def sample_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        """Independent latents: [R, d] -> [num_samples, R, Z], row r from ``generators[r]`` alone."""
        ...


class Calm(ChunkLanguageModel):
    """Backbone over chunks, generative head, and the frozen autoencoder that defines what a latent means."""

    def __init__(self, config: LanguageModelConfig, autoencoder: Autoencoder) -> None:
        """
        Raises:
            ValueError: the autoencoder packs another number of tokens than the model's chunk size.
        """
        super().__init__(config, autoencoder.vocab_size)
        if autoencoder.chunk_size != config.chunk_size:
            raise ValueError(f"the model has K = {config.chunk_size}, its autoencoder K = {autoencoder.chunk_size}")
        d = config.hidden_size
        self.input_projection = nn.Sequential(
            nn.Linear(config.chunk_size * d, 2 * d), nn.SiLU(), nn.Linear(2 * d, d), nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        )
        for module in self.input_projection:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=self.backbone.config.initializer_range)
                nn.init.zeros_(module.bias)
        self.head = HEADS.get(config.head.kind)(config.head, d, autoencoder.latent_size)
        self.autoencoder = autoencoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Training mode for everything but the autoencoder: its targets must be those of evaluation."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def embed(self, tokens: Tensor) -> Tensor:
        embedded = self.backbone.embed_tokens(chunks_of(tokens, self.chunk_size))
        projected: Tensor = self.input_projection(embedded.flatten(-2))
        return projected

    def draw(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        return self.autoencoder.decode(self.head.sample(hidden, num_samples, generator))

    def draw_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        if isinstance(self.head, RowHead):
            latents = self.head.sample_rows(hidden, num_samples, generators)
        elif isinstance(self.head, EnergyHead):
            # Only the noise belongs to a row; the network sees all rows at once.
            size = (num_samples, self.head.config.noise_size)
            noise = [torch.rand(size, generator=generator, device=hidden.device) for generator in generators]
            latents = self.head(hidden, (torch.stack(noise, dim=1) - 0.5).to(hidden.dtype))
        else:
            rows = zip(hidden, generators, strict=True)
            latents = torch.stack([self.head.sample(row, num_samples, generator) for row, generator in rows], dim=1)
        return self.autoencoder.decode(latents)

    def loss(self, tokens: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = self.hidden_states(tokens[:, : -self.chunk_size])
        with torch.no_grad():
            mean, log_std = self.autoencoder.encode(tokens[:, self.chunk_size :])
        return self.head.loss(hidden.flatten(0, 1), mean.flatten(0, 1), log_std.flatten(0, 1), generator)

    def description(self) -> dict[str, Any]:
        return {
            "model_type": "calm_bench_calm",
            "vocab_size": self.vocab_size,
            "model": self.config.model_dump(mode="json", exclude={"training"}),
            "autoencoder": self.autoencoder.description(),
        }
