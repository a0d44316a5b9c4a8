"""A chunk model whose truth is known: its head draws one of nine latents, each the latent of one chunk.

Shape letters: Q chunks, S draws, K tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from calm_bench.lm import Calm
from evals.scorers.draws import Chunks, Draws

VOCAB_SIZE, CHUNK_SIZE = 3, 2
CHUNKS = list(product(range(VOCAB_SIZE), repeat=CHUNK_SIZE))
PROBABILITIES = torch.tensor([0.25, 0.05, 0.1, 0.02, 0.2, 0.08, 0.15, 0.12, 0.03])
"""Probabilities of the chunks, whatever stands before them."""
SHARPNESS = 12.0
HIDDEN = torch.zeros(1, 4)


class OneHotEncoder:
    """The latent is the tokens, one-hot."""

    embedding = SimpleNamespace(weight=torch.eye(VOCAB_SIZE))

    def __call__(self, chunks: Tensor, dropped: None, context: None) -> tuple[Tensor, Tensor]:
        mean = nn.functional.one_hot(chunks, VOCAB_SIZE).flatten(-2).float()
        return mean, torch.full_like(mean, -2.5)


class OneHot:
    """An autoencoder whose decoder's softmax is not quite sure of the tokens."""

    encoder = OneHotEncoder()

    def __init__(self, sharpness: float = SHARPNESS) -> None:
        self.sharpness = sharpness

    def decoder_hidden(self, latents: Tensor, context: None) -> Tensor:
        return self.sharpness * latents.unflatten(-1, (CHUNK_SIZE, VOCAB_SIZE))


def mixture(hidden: Tensor, num_samples: int, generators: list[torch.Generator]) -> Tensor:
    """Latents of the chunks with their probabilities, whatever the hidden state."""
    drawn = [torch.multinomial(PROBABILITIES, num_samples, replacement=True, generator=own) for own in generators]
    chunks = torch.tensor(CHUNKS)[torch.stack(drawn, dim=1)]
    return nn.functional.one_hot(chunks, VOCAB_SIZE).flatten(-2).float()


def model(sharpness: float = SHARPNESS) -> Calm:
    """The parts of a CALM that :class:`evals.scorers.draws.Draws` asks for."""
    parts = SimpleNamespace(
        latent_rows=mixture,
        parts=lambda state: (state, None),
        autoencoder=OneHot(sharpness),
        chunk_size=CHUNK_SIZE,
    )
    return cast(Calm, cast(Any, parts))


def draws_of(
    chunks: Sequence[tuple[int, ...]],
    begin: int,
    end: int,
    num_samples: int,
    seed: int = 0,
    sharpness: float = SHARPNESS,
) -> Draws:
    """Draws with which the tokens of ``chunks`` from ``begin`` to before ``end`` are scored."""
    count = len(chunks)
    scored = Chunks(
        hidden=HIDDEN.expand(count, -1),
        tokens=torch.tensor(chunks),
        begins=torch.full((count,), begin),
        ends=torch.full((count,), end),
        seeds=[seed * 1000 + index for index in range(count)],
    )
    return Draws(model(sharpness), scored, num_samples)
