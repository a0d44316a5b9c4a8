"""What all language models here have in common: read chunks, predict the next chunk, draw samples of it.

Shape legend: B sequences, n backbone steps (chunks), K tokens of a chunk, d hidden size, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from transformers import LlamaConfig, LlamaModel

from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.weights import save_weights

RMS_NORM_EPS = 1e-6
ROPE_THETA = 10000.0
MAX_POSITIONS = 1 << 17
"""Rotary positions need no table, so this only keeps transformers from complaining."""


class ChunkLanguageModel(nn.Module, ABC):
    """A Llama-style backbone that takes one step per chunk of K tokens; the token model is the case K = 1."""

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.chunk_size = config.chunk_size
        self.vocab_size = vocab_size
        settings: dict[str, Any] = {
            "vocab_size": vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.key_value_heads,
            "max_position_embeddings": MAX_POSITIONS,
            "rms_norm_eps": RMS_NORM_EPS,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
            "initializer_range": config.hidden_size**-0.5,
            "use_cache": False,
            "attn_implementation": "sdpa",
        }
        self.backbone = LlamaModel(LlamaConfig(**settings))

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Inputs of the backbone: ids [..., n * K] -> [..., n, d]."""

    @abstractmethod
    def draw(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Independent samples of the next chunk at temperature 1: [..., d] -> ids [num_samples, ..., K]."""

    def draw_rows(self, hidden: Tensor, num_samples: int, generators: Sequence[Generator]) -> Tensor:
        """As :meth:`draw`, every row from a generator of its own: [R, d] -> ids [num_samples, R, K].

        Row r is what ``draw(hidden[r], num_samples, generators[r])`` gives, whatever the other rows are.
        """
        rows = zip(hidden, generators, strict=True)
        return torch.stack([self.draw(row, num_samples, generator) for row, generator in rows], dim=1)

    @abstractmethod
    def loss(self, tokens: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss of predicting every chunk but the first: ids [B, n * K] -> scalar and named scalar terms."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything but the weights that is needed to build this model again."""

    def hidden_states(self, tokens: Tensor) -> Tensor:
        """ids [B, n * K] -> [B, n, d]; position p has read chunks 0 to p and predicts chunk p + 1."""
        hidden: Tensor = self.backbone(inputs_embeds=self.embed(tokens)).last_hidden_state
        return hidden

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters that training changes; leaves a frozen autoencoder out."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``."""
        save_weights(self, folder, self.description())


def chunks_of(tokens: Tensor, chunk_size: int) -> Tensor:
    """[..., n * K] -> [..., n, K].

    Raises:
        ValueError: the length is not a multiple of K.
    """
    if tokens.shape[-1] % chunk_size:
        raise ValueError(f"{tokens.shape[-1]} tokens are not a whole number of chunks of {chunk_size}")
    chunks: Tensor = tokens.unflatten(-1, (tokens.shape[-1] // chunk_size, chunk_size))
    return chunks
