"""Closed-form FLOPs of the parts that models of several families share: backbone, input of a chunk, autoencoder.

:mod:`calm_bench.flops` has the rules and the symbols. FLOPs are per backbone step (one chunk).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from calm_bench.config import Autoencoder, LanguageModel


@dataclass(frozen=True)
class CostBreakdown:
    """Amounts by part (FLOPs or parameters)."""

    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "parts", MappingProxyType({name: amount for name, amount in self.parts.items() if amount})
        )

    @property
    def total(self) -> float:
        return float(sum(self.parts.values()))

    def times(self, factor: float) -> CostBreakdown:
        """Every part multiplied: FLOPs per token times tokens."""
        return CostBreakdown({name: amount * factor for name, amount in self.parts.items()})


def backbone_weights(model: LanguageModel) -> int:
    """Weights of the layers' matrices: queries and output d x d, keys and values d x d_kv, three of the SwiGLU."""
    d = model.hidden_size
    key_value_size = d // model.num_attention_heads * model.key_value_heads
    return model.num_layers * (2 * d * d + 2 * d * key_value_size + 3 * d * model.intermediate_size)


def backbone_flops(model: LanguageModel, context_steps: int) -> dict[str, float]:
    """FLOPs of a step that attends to ``context_steps`` steps."""
    return {
        "backbone": 2.0 * backbone_weights(model),
        "attention": 4.0 * context_steps * model.hidden_size * model.num_layers,
    }


def chunk_input_flops(model: LanguageModel) -> float:
    """The chunk of K embeddings to one vector: K d -> 2 d -> d."""
    d = model.hidden_size
    return 2.0 * (model.chunk_size * d * 2 * d + 2 * d * d)


def chunk_input_parameters(model: LanguageModel) -> int:
    """Two linear layers with biases, then a LayerNorm with scale and shift."""
    d = model.hidden_size
    return (model.chunk_size * d + 1) * 2 * d + (2 * d + 1) * d + 2 * d


def encoder_flops(autoencoder: Autoencoder, chunk_size: int) -> float:
    """Per chunk: half of the blocks run once a token, half once a chunk."""
    h = autoencoder.hidden_size
    blocks = autoencoder.num_encoder_layers / 2 * (chunk_size + 1) * 3 * h * autoencoder.intermediate_size
    return 2.0 * (blocks + chunk_size * h * h + h * 2 * autoencoder.latent_size)


def context_flops(autoencoder: Autoencoder, chunk_size: int) -> float:
    """Per chunk: what an autoencoder that reads the chunk before makes of it, for encoder and decoder at once."""
    h = autoencoder.hidden_size
    return autoencoder.context_chunks * 2.0 * (chunk_size * h * h + 3 * h * autoencoder.intermediate_size)


def decoder_flops(autoencoder: Autoencoder, chunk_size: int) -> float:
    """Per chunk, without its logits."""
    h = autoencoder.hidden_size
    blocks = autoencoder.num_decoder_layers / 2 * (chunk_size + 1) * 3 * h * autoencoder.intermediate_size
    return 2.0 * (blocks + h * chunk_size * h + autoencoder.latent_size * h)


def decoder_logits_flops(autoencoder: Autoencoder, chunk_size: int, vocab_size: int) -> float:
    """Per chunk, every token of which gets logits over the vocabulary."""
    return 2.0 * chunk_size * autoencoder.hidden_size * vocab_size
