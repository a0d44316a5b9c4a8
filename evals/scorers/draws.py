"""Chunks to be scored, and the draws that all scorers score them with.

Shape letters: Q chunks, S draws of each, K tokens of a chunk, d hidden size, Z latent size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from calm_bench import blockwise
from calm_bench.finite import require_finite
from calm_bench.lm.calm import Calm

CHUNK_DRAWS = 1 << 13
"""Draws (S times Q) that are held at once."""


@dataclass(frozen=True)
class Chunks:
    """Chunks in their contexts."""

    hidden: Tensor
    """[Q, d]: what the backbone knows when it predicts the chunk."""
    tokens: Tensor
    """Long [Q, K]; anything from ``ends`` on."""
    begins: Tensor
    """Long [Q]: tokens of the chunk that belong to the context, fewer than ``ends``."""
    ends: Tensor
    """Long [Q]: tokens of the chunk that are known, K or fewer."""
    seeds: Sequence[int]
    """One a chunk, of its draws."""

    def __len__(self) -> int:
        return len(self.seeds)

    def blocks(self, num_samples: int) -> Iterator[Chunks]:
        """As many chunks at a time as ``CHUNK_DRAWS`` allows."""
        size = max(1, CHUNK_DRAWS // num_samples)
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Chunks(self.hidden[part], self.tokens[part], self.begins[part], self.ends[part], self.seeds[part])


class Draws:
    """S latents of each chunk from the model's head, and what the autoencoder makes of them."""

    def __init__(self, model: Calm, chunks: Chunks, num_samples: int) -> None:
        device = chunks.hidden.device
        generators = [torch.Generator(device=device).manual_seed(seed) for seed in chunks.seeds]
        self.model, self.chunks, self.num_samples = model, chunks, num_samples
        self.latents = model.latent_rows(chunks.hidden, num_samples, generators)
        """[S, Q, Z]"""
        require_finite(self.latents, "latents")
        self.context = model.parts(chunks.hidden)[1]
        """[Q, H] that the decoder reads beside a latent, where the autoencoder reads the chunk before."""
        self._offsets = torch.arange(model.chunk_size, device=device)

    @cached_property
    def in_context(self) -> Tensor:
        """Bool [Q, K]: tokens that the context gives."""
        return self._offsets < self.chunks.begins[:, None]

    @cached_property
    def known(self) -> Tensor:
        """Bool [Q, K]: tokens of the context or the continuation."""
        return self._offsets < self.chunks.ends[:, None]

    @property
    def latent_contexts(self) -> Tensor | None:
        """[S, Q, H]."""
        return None if self.context is None else self.context.expand(self.num_samples, -1, -1)

    @cached_property
    def _decoded(self) -> tuple[Tensor, Tensor]:
        hidden = self.model.autoencoder.decoder_hidden(self.latents, self.latent_contexts)
        targets = self.chunks.tokens.expand(self.num_samples, -1, -1)
        weight = self.model.autoencoder.encoder.embedding.weight
        log_probability, likeliest = blockwise.log_probabilities_and_argmax(
            hidden.flatten(0, 2), weight, targets.flatten()
        )
        return log_probability.view(targets.shape), likeliest.view(targets.shape)

    @property
    def log_probabilities(self) -> Tensor:
        """[S, Q, K]: log p(x_k | z) of the decoder's softmax, in nats; meaningless where x_k is not known."""
        return self._decoded[0]

    @property
    def tokens(self) -> Tensor:
        """Long [S, Q, K]: what each latent is decoded to."""
        return self._decoded[1]

    @cached_property
    def context_log_probability(self) -> Tensor:
        """[S, Q]: log p of the tokens that the context gives; 0 where it gives none."""
        return self.log_probabilities.masked_fill(~self.in_context, 0).sum(dim=-1)

    @cached_property
    def known_log_probability(self) -> Tensor:
        """[S, Q]: log p of all known tokens."""
        return self.log_probabilities.masked_fill(~self.known, 0).sum(dim=-1)

    @cached_property
    def posterior(self) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the encoder's posterior of the chunk, each [S, Q, Z].

        Tokens after the known ones are those that the draw itself is decoded to: of all chunks that begin with the
        known tokens, the one that the draw speaks for.
        """
        encoder = self.model.autoencoder.encoder
        posterior = encoder(self.chunks.tokens, None, self.context)
        mean, log_std = (part.expand(self.num_samples, -1, -1) for part in posterior)
        partial = ~self.known.all(dim=-1)
        if bool(partial.any()):
            completed = torch.where(self.known, self.chunks.tokens, self.tokens)[:, partial]
            context = None if self.context is None else self.context[partial]
            mean, log_std = mean.clone(), log_std.clone()
            mean[:, partial], log_std[:, partial] = encoder(completed, None, context)
        return mean, log_std

    @cached_property
    def matches(self) -> tuple[Tensor, Tensor]:
        """Bool [S, Q] each: draws that decode to the tokens of the context, and to all that are known."""
        same = self.tokens == self.chunks.tokens
        return (same | ~self.in_context).all(dim=-1), (same | ~self.known).all(dim=-1)

    @cached_property
    def is_likeliest(self) -> Tensor:
        """Bool [Q]: of the draws that begin as the context demands, the known tokens are the most frequent ones."""
        begins, fits = self.matches
        found = []
        for row, end in enumerate(self.chunks.ends.tolist()):
            pieces = self.tokens[begins[:, row], row, :end]
            best = int(torch.unique(pieces, dim=0, return_counts=True)[1].max()) if len(pieces) else 1
            found.append(int(fits[:, row].sum()) >= best)
        return torch.tensor(found)
