"""CALM: predict the next chunk's latent instead of the next token (paper section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Generator, Tensor

from calm_bench import blockwise
from calm_bench.autoencoder import Autoencoder
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.finite import require_finite
from calm_bench.heads import HEADS
from calm_bench.heads.noise import Noise
from calm_bench.lm.base import ChunkLanguageModel, LazyChunks, chunks_of
from calm_bench.lm.chunked import ChunkInput


class DrawnLatents(LazyChunks):
    """Latents [Q, Z] of which each token is decoded by itself: at a large vocabulary most of the cost of a sample."""

    def __init__(self, autoencoder: Autoencoder, latents: Tensor, context: Tensor | None) -> None:
        """Args: ``context``, [Q, H] where the autoencoder reads one."""
        self._autoencoder = autoencoder
        self._chunks = autoencoder.decoder.chunk(latents, context)

    def pays_to_know(self, num_samples: int) -> bool:
        return blockwise.pays_to_know(num_samples, self._autoencoder.encoder.embedding.weight)

    def token(self, index: int, samples: Tensor, among: Tensor | None = None) -> Tensor:
        return self._autoencoder.decode_token(self._chunks[samples], index, among)


class Calm(ChunkLanguageModel):
    """Backbone over chunks, generative head, and the frozen autoencoder that defines what a latent means.

    Where the autoencoder reads the chunk before, a state is of d + H numbers: the hidden state that the head reads,
    then the context that the decoder reads, which is a function of the chunk that was read last. So whoever holds a
    state to draw from, in a tree of continuations or a cache, holds the chunk before too.
    """

    likelihood = "bound"

    def __init__(self, config: LanguageModelConfig, autoencoder: Autoencoder) -> None:
        """
        Raises:
            ValueError: the autoencoder packs another number of tokens than the model's chunk size.
        """
        super().__init__(config, autoencoder.vocab_size)
        if autoencoder.chunk_size != config.chunk_size:
            raise ValueError(f"the model has K = {config.chunk_size}, its autoencoder K = {autoencoder.chunk_size}")
        d = config.hidden_size
        self.input_projection = ChunkInput(config, self.backbone.initializer_range)
        self.head = HEADS.get(config.head.kind)(config.head, d, autoencoder.latent_size)
        self.draws_by_rows = self.head.draws_by_rows
        self.autoencoder = autoencoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Training mode for everything but the autoencoder: its targets must be those of evaluation."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def embed(self, tokens: Tensor) -> Tensor:
        inputs = self.input_projection.read(self.backbone, tokens, self.chunk_size)
        with torch.no_grad():
            context = self.autoencoder.context_after(chunks_of(tokens, self.chunk_size))
        return inputs if context is None else torch.cat([inputs, context], dim=-1)

    def parts(self, state: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the head and the decoder read of a state: [..., d] and, where there is one, the context [..., H]."""
        if not self.autoencoder.context_size:
            return state, None
        hidden, context = state.split([self.config.hidden_size, self.autoencoder.context_size], dim=-1)
        return hidden, context

    def draw_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        return self._decoded(self.latents_from(hidden, noise), hidden)

    def latents_from(self, hidden: Tensor, noise: Noise) -> Tensor:
        """Samples of the next latent: states [..., d] -> [S, ..., Z] for the S samples of ``noise``."""
        return self.head.sample_from(self.parts(hidden)[0], noise)

    def latent_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        """As :meth:`latents_from`, every row's from a generator of its own: [R, d] -> [num_samples, R, Z]."""
        # A head may have a way of its own.
        return self.head.sample_rows(self.parts(hidden)[0], num_samples, generators)

    def draw_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        return self._decoded(self.latent_rows(hidden, num_samples, generators), hidden)

    def draft(self, hidden: Tensor, noise: Noise) -> LazyChunks:
        latents = self.latents_from(hidden, noise)
        require_finite(latents, "latents")
        context = self.parts(hidden)[1]
        if context is not None:
            context = context.expand(*latents.shape[:-1], -1).flatten(0, -2)
        return DrawnLatents(self.autoencoder, latents.flatten(0, -2), context)

    def draft_each(self, hidden: Tensor, state: Tensor, noise: Noise) -> LazyChunks:
        return self.draft(hidden[state], noise)

    def _decoded(self, latents: Tensor, hidden: Tensor) -> Tensor:
        require_finite(latents, "latents")
        return self.autoencoder.decode(latents, self.parts(hidden)[1])

    def log_likelihoods(
        self, hidden: Tensor, chunks: Tensor, num_samples: int, generator: Generator | None = None
    ) -> Tensor:
        """The logarithm of the mean over latents z that the head draws of ``prod_k p(x_k | z)``: in expectation at most
        the true one (Jensen), from which it differs less the more draws there are."""
        state, context = self.parts(hidden)
        latents = self.head.sample(state, num_samples, generator)  # [S, R, Z]
        given = self.autoencoder.log_likelihoods(latents, chunks.expand(num_samples, -1, -1), context)
        return given.logsumexp(dim=0) - math.log(num_samples)

    def loss(self, tokens: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        hidden, context = self.parts(self.hidden_states(tokens[:, : -self.chunk_size]))
        with torch.no_grad():
            mean, log_std = self.autoencoder.encode(tokens[:, self.chunk_size :], context=context)
        return self.head.loss(hidden.flatten(0, 1), mean.flatten(0, 1), log_std.flatten(0, 1), generator)

    def description(self) -> dict[str, Any]:
        return {**super().description(), "autoencoder": self.autoencoder.description()}
