"""Closed-form FLOPs and parameter counts, by part. Pure functions of the configuration; nothing here imports torch.

Rules (they reproduce the paper's Table 1): a matrix product costs 2 FLOPs per weight and row; attention costs
4 * T * d per layer and position for T positions of context, not halved for causality; a backward pass costs twice its
forward; embedding look-ups, norms and activations are free. All FLOPs are per *token*: a chunk model's steps cost what
they cost and are divided by K.

What all families of models share is priced here, the rest by the family (:mod:`calm_bench.families`).

Symbols: d hidden size of the backbone, K tokens of a chunk, V vocabulary, w head width, Z latent size, h hidden size of
the autoencoder.
"""

from __future__ import annotations

from collections.abc import Mapping

from calm_bench.config import Autoencoder, LanguageModel, Training
from calm_bench.families.base import family_of
from calm_bench.head_costs import FORWARD_AND_BACKWARD, Accounting
from calm_bench.part_costs import (
    CostBreakdown,
    backbone_flops,
    backbone_weights,
    context_flops,
    decoder_flops,
    decoder_logits_flops,
    encoder_flops,
)

__all__ = [
    "DECODE_MODE",
    "Accounting",
    "CostBreakdown",
    "autoencoder_parameter_count",
    "autoencoder_training_flops",
    "inference_flops",
    "layer_parameters",
    "parameter_count",
    "training_flops",
    "training_steps",
]

DECODE_MODE = "sample T=1"
"""What :func:`inference_flops` prices: one sample of the next chunk, at temperature 1, with a key-value cache."""


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
        autoencoder: the frozen autoencoder of a ``calm`` model; unused by families that need none.
        context_steps: T, backbone steps (chunks) of a training sequence.
    """
    family = family_of(model)
    per_step = {name: FORWARD_AND_BACKWARD * cost for name, cost in backbone_flops(model, context_steps).items()}
    per_step.update(family.training_flops(model, autoencoder, vocab_size, accounting))
    return _per_token(per_step, family.chunk_size(model))


def inference_flops(
    model: LanguageModel,
    autoencoder: Autoencoder | None,
    vocab_size: int,
    context_steps: int,
    accounting: Accounting = "implementation",
) -> CostBreakdown:
    """FLOPs per generated token in decode mode ``sample T=1``, from text to text: the logits of every token are
    included.

    Args:
        context_steps: T, backbone steps in the cache.
    """
    family = family_of(model)
    per_step = dict(backbone_flops(model, context_steps))
    per_step.update(family.inference_flops(model, autoencoder, vocab_size, accounting))
    return _per_token(per_step, family.chunk_size(model))


def autoencoder_training_flops(autoencoder: Autoencoder, chunk_size: int, vocab_size: int) -> CostBreakdown:
    """Training FLOPs per token of the autoencoder, forward and backward."""
    per_chunk = {
        "autoencoder_context": context_flops(autoencoder, chunk_size),
        "autoencoder_encoder": encoder_flops(autoencoder, chunk_size),
        "autoencoder_decoder": decoder_flops(autoencoder, chunk_size),
        "logits": decoder_logits_flops(autoencoder, chunk_size, vocab_size),
    }
    return _per_token({name: FORWARD_AND_BACKWARD * cost for name, cost in per_chunk.items()}, chunk_size)


def parameter_count(model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> CostBreakdown:
    """Trained parameters of a language model, exact; a chunk model's frozen autoencoder is not among them."""
    d = model.hidden_size
    norms = (2 * model.num_layers + 1) * d
    parts = {"backbone": float(backbone_weights(model) + norms), "input": float(vocab_size * d)}
    for name, count in family_of(model).parameters(model, autoencoder, vocab_size).items():
        parts[name] = parts.get(name, 0.0) + count
    return CostBreakdown(parts)


def layer_parameters(model: LanguageModel) -> float:
    """Parameters of one layer of the backbone, exact."""
    return backbone_weights(model) / model.num_layers + 2.0 * model.hidden_size


def autoencoder_parameter_count(autoencoder: Autoencoder, chunk_size: int, vocab_size: int) -> CostBreakdown:
    """Parameters of the autoencoder, exact; its output projection is the embedding."""
    h, z = autoencoder.hidden_size, autoencoder.latent_size
    block = 3 * h * autoencoder.intermediate_size + h
    mask = h if autoencoder.dropped_token == "mask" else 0
    # A vector for what has nothing before it, and the norm before the decoder.
    context = autoencoder.context_chunks * ((chunk_size * h + 1) * h + block + 2 * h)
    return CostBreakdown(
        {
            "embedding": float(vocab_size * h + mask),
            "autoencoder_context": float(context),
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
