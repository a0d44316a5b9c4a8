"""Closed-form FLOPs and parameter counts, by part. Pure functions of the configuration; nothing here imports torch.

Rules (they reproduce the paper's Table 1): a matrix product costs 2 FLOPs per weight and row; attention costs
4 * T * d per layer and position for T positions of context, not halved for causality; a backward pass costs twice its
forward; embedding look-ups, norms and activations are free. All FLOPs are per *token*: a chunk model's steps cost what
they cost and are divided by K.

Symbols: d hidden size of the backbone, K tokens of a chunk, V vocabulary, w head width, Z latent size, h hidden size of
the autoencoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from calm_bench.config import Autoencoder, LanguageModel, Training
from calm_bench.head_costs import FORWARD_AND_BACKWARD, Accounting, head_cost

DECODE_MODE = "sample T=1"
"""What :func:`inference_flops` prices: one sample of the next chunk, at temperature 1, with a key-value cache."""


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


def training_flops(
    model: LanguageModel,
    autoencoder: Autoencoder | None,
    vocab_size: int,
    context_steps: int,
    accounting: Accounting = "implementation",
) -> CostBreakdown:
    """Training FLOPs per token of a language model, forward and backward.

    The autoencoder's own training is not part of it: see :func:`autoencoder_training_flops`.

    Args:
        autoencoder: the frozen autoencoder of a ``calm`` model; unused for a ``token`` model.
        context_steps: T, backbone steps (chunks) of a training sequence.
    """
    per_step = {name: FORWARD_AND_BACKWARD * cost for name, cost in _backbone(model, context_steps).items()}
    if model.kind == "token":
        return CostBreakdown({**per_step, "logits": FORWARD_AND_BACKWARD * 2.0 * vocab_size * model.hidden_size})
    latent_size = _required(autoencoder).latent_size
    head = head_cost(model.head, model.hidden_size, latent_size, accounting)
    per_step["input"] = FORWARD_AND_BACKWARD * _input(model)
    per_step["head"] = head.training
    if accounting == "implementation":
        per_step["autoencoder_encoder"] = _encoder(_required(autoencoder), model.chunk_size)
        per_step["energy_score"] = head.score
    return _per_token(per_step, model.chunk_size)


def inference_flops(
    model: LanguageModel,
    autoencoder: Autoencoder | None,
    vocab_size: int,
    context_steps: int,
    accounting: Accounting = "implementation",
) -> CostBreakdown:
    """FLOPs per generated token in decode mode ``sample T=1``, from text to text: the decoder's logits are included.

    Args:
        context_steps: T, backbone steps in the cache.
    """
    per_step = dict(_backbone(model, context_steps))
    if model.kind == "token":
        return CostBreakdown({**per_step, "logits": 2.0 * vocab_size * model.hidden_size})
    decoder = _required(autoencoder)
    per_step["input"] = _input(model)
    per_step["head"] = head_cost(model.head, model.hidden_size, decoder.latent_size, accounting).inference
    per_step["autoencoder_decoder"] = _decoder(decoder, model.chunk_size)
    per_step["logits"] = _decoder_logits(decoder, model.chunk_size, vocab_size)
    return _per_token(per_step, model.chunk_size)


def autoencoder_training_flops(autoencoder: Autoencoder, chunk_size: int, vocab_size: int) -> CostBreakdown:
    """Training FLOPs per token of the autoencoder, forward and backward."""
    per_chunk = {
        "autoencoder_encoder": _encoder(autoencoder, chunk_size),
        "autoencoder_decoder": _decoder(autoencoder, chunk_size),
        "logits": _decoder_logits(autoencoder, chunk_size, vocab_size),
    }
    return _per_token({name: FORWARD_AND_BACKWARD * cost for name, cost in per_chunk.items()}, chunk_size)


def parameter_count(model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> CostBreakdown:
    """Trained parameters of a language model, exact; a chunk model's frozen autoencoder is not among them."""
    d = model.hidden_size
    norms = (2 * model.num_layers + 1) * d
    parts = {"backbone": float(_backbone_weights(model) + norms), "input": float(vocab_size * d)}
    if model.kind == "token":
        return CostBreakdown({**parts, "logits": float(vocab_size * d)})
    latent_size = _required(autoencoder).latent_size
    # Two linear layers with biases, then a LayerNorm with scale and shift.
    parts["input"] += (model.chunk_size * d + 1) * 2 * d + (2 * d + 1) * d + 2 * d
    parts["head"] = float(head_cost(model.head, d, latent_size, "implementation").parameters)
    return CostBreakdown(parts)


def autoencoder_parameter_count(autoencoder: Autoencoder, chunk_size: int, vocab_size: int) -> CostBreakdown:
    """Parameters of the autoencoder, exact; its output projection is the embedding."""
    h, z = autoencoder.hidden_size, autoencoder.latent_size
    block = 3 * h * autoencoder.intermediate_size + h
    mask = h if autoencoder.dropped_token == "mask" else 0
    return CostBreakdown(
        {
            "embedding": float(vocab_size * h + mask),
            "autoencoder_encoder": float(
                autoencoder.num_encoder_layers * block + (chunk_size * h + 1) * h + h + (h + 1) * 2 * z
            ),
            "autoencoder_decoder": float(
                autoencoder.num_decoder_layers * block + (z + 1) * h + (h + 1) * chunk_size * h + h
            ),
        }
    )


def training_steps(training: Training, flops_per_token: float) -> int:
    """Optimizer steps that the budget of ``training`` pays for, at least one."""
    if training.num_steps is not None:
        return training.num_steps
    tokens = training.num_tokens if training.num_tokens is not None else (training.num_flops or 0.0) / flops_per_token
    return max(1, round(tokens / (training.batch_size * training.sequence_length)))


def _per_token(per_step: Mapping[str, float], chunk_size: int) -> CostBreakdown:
    return CostBreakdown({name: cost / chunk_size for name, cost in per_step.items()})


def _required(autoencoder: Autoencoder | None) -> Autoencoder:
    if autoencoder is None:
        raise ValueError("a calm model cannot be priced without its autoencoder")
    return autoencoder


def _backbone_weights(model: LanguageModel) -> int:
    """Weights of the layers' matrices: queries and output d x d, keys and values d x d_kv, three of the SwiGLU."""
    d = model.hidden_size
    key_value_size = d // model.num_attention_heads * model.key_value_heads
    return model.num_layers * (2 * d * d + 2 * d * key_value_size + 3 * d * model.intermediate_size)


def _backbone(model: LanguageModel, context_steps: int) -> dict[str, float]:
    return {
        "backbone": 2.0 * _backbone_weights(model),
        "attention": 4.0 * context_steps * model.hidden_size * model.num_layers,
    }


def _input(model: LanguageModel) -> float:
    """The chunk of K embeddings to one vector: K d -> 2 d -> d."""
    d = model.hidden_size
    return 2.0 * (model.chunk_size * d * 2 * d + 2 * d * d)


def _encoder(autoencoder: Autoencoder, chunk_size: int) -> float:
    """Per chunk: half of the blocks run once a token, half once a chunk."""
    h = autoencoder.hidden_size
    blocks = autoencoder.num_encoder_layers / 2 * (chunk_size + 1) * 3 * h * autoencoder.intermediate_size
    return 2.0 * (blocks + chunk_size * h * h + h * 2 * autoencoder.latent_size)


def _decoder(autoencoder: Autoencoder, chunk_size: int) -> float:
    h = autoencoder.hidden_size
    blocks = autoencoder.num_decoder_layers / 2 * (chunk_size + 1) * 3 * h * autoencoder.intermediate_size
    return 2.0 * (blocks + h * chunk_size * h + autoencoder.latent_size * h)


def _decoder_logits(autoencoder: Autoencoder, chunk_size: int, vocab_size: int) -> float:
    return 2.0 * chunk_size * autoencoder.hidden_size * vocab_size
