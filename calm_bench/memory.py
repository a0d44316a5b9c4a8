"""Closed-form peak memory of training, evaluating and sampling, by part. Nothing here imports torch.

What is counted is what the code here holds at once: weights, their gradients, Adam's two averages, what the forward
pass keeps for the backward pass at one micro-batch, and vocabulary-sized blocks (:mod:`calm_bench.blockwise` never
makes all logits). On CPUs the peak of the process lies within 25 % of it (``tests/calm_bench/test_memory.py``).

Symbols: d hidden size, i intermediate size of a SwiGLU, w head width, Z latent size, h hidden size of the autoencoder,
V vocabulary, N samples a position is trained on, M target draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from calm_bench.arithmetic import Precision, resolve_precision
from calm_bench.config import Autoencoder, Evaluation, LanguageModel, Samples, Training
from calm_bench.families.base import family_of
from calm_bench.flops import CostBreakdown, autoencoder_parameter_count, parameter_count
from calm_bench.part_memory import (
    CACHED_LOGITS,
    CACHED_LOGITS_ON_GPU,
    MAX_LOGITS,
    MAX_LOGITS_ON_GPU,
    backbone_kept,
    cross_entropy_peak,
)
from calm_bench.sampling.block_sizes import samples_at_once

__all__ = [
    "CACHED_LOGITS",
    "CACHED_LOGITS_ON_GPU",
    "MAX_LOGITS",
    "MAX_LOGITS_ON_GPU",
    "Memory",
    "autoencoder_training_memory",
    "evaluation_memory",
    "frozen_parameters",
    "sampling_memory",
    "training_memory",
]

FLOAT = 4
"""Bytes of a number in fp32."""
MAX_SCORES = {"cpu": 1 << 23, "cuda": 1 << 29}
"""As in :mod:`calm_bench.lm.tree`."""
WINDOWS_AT_ONCE = 16
"""As in :mod:`evals.evaluate`."""
_HORIZON = 4
"""Tokens of the longest scored n-gram."""
PROCESS_BYTES = {"cpu": 3.1e8, "cuda": 4.3e8}
"""Python with torch, transformers and what a stage imports; on a GPU, CUDA's context and cuBLAS's workspace there."""
AUTOCAST = {"fp32": 1.0, "bf16": 0.64}
HEAD_AUTOCAST = {"fp32": 1.0, "bf16": 0.4}
"""Share of its size in fp32 that an activation of the backbone and of what stands on it takes: in bf16 matrix products
have two bytes a number, norms and losses keep four. Measured on the paper's sizes (``tests/gpu``)."""


@dataclass(frozen=True)
class Memory:
    """Bytes by part at the worst moment of one kind of work."""

    parts: CostBreakdown = field(default_factory=CostBreakdown)

    @property
    def total(self) -> float:
        return self.parts.total


def training_memory(
    model: LanguageModel,
    autoencoder: Autoencoder | None,
    vocab_size: int,
    device: Literal["cpu", "cuda"] = "cpu",
    sequences: int | None = None,
    activation_checkpointing: bool = False,
) -> Memory:
    """Peak bytes of a worker that trains ``model`` with ``sequences`` at once, unset: the micro-batch configured.

    Args:
        activation_checkpointing: whether the layers of the backbone are computed again in the backward pass.
    """
    training, family = model.training, family_of(model)
    precision = resolve_precision(training.precision, device)
    trained = parameter_count(model, autoencoder, vocab_size)
    sequences = sequences or training.batch_size // training.gradient_accumulation
    steps = training.sequence_length // model.chunk_size - 1
    rows = sequences * max(steps, 1)
    backbone = AUTOCAST[precision] * backbone_kept(model)
    if activation_checkpointing:
        # The inputs of all layers, in fp32 as their sum is, and one layer.
        backbone = model.num_layers * model.hidden_size + AUTOCAST[precision] * backbone_kept(model, num_layers=1)
    kept = backbone + HEAD_AUTOCAST[precision] * family.kept(model, autoencoder)
    peak = family.loss_peak(model, autoencoder, vocab_size, rows, device)
    # Tables of embeddings are read as they are, and the cross-entropy casts the output's by itself.
    cast = trained.total - vocab_size * model.hidden_size - trained.parts.get("logits", 0.0)
    frozen = frozen_parameters(model, autoencoder, vocab_size)
    return Memory(_worker(trained.total, _averages(training), cast, frozen, rows * kept, peak, precision, device))


def autoencoder_training_memory(
    autoencoder: Autoencoder,
    chunk_size: int,
    vocab_size: int,
    device: Literal["cpu", "cuda"] = "cpu",
    sequences: int | None = None,
) -> Memory:
    """Peak bytes of a worker that trains ``autoencoder``, as :func:`training_memory`."""
    training = autoencoder.training
    precision = resolve_precision(training.precision, device)
    trained = autoencoder_parameter_count(autoencoder, chunk_size, vocab_size).total
    tokens = (sequences or training.batch_size // training.gradient_accumulation) * training.sequence_length
    h, i = autoencoder.hidden_size, autoencoder.intermediate_size
    layers = (autoencoder.num_encoder_layers + autoencoder.num_decoder_layers) / 2
    block = 3 * h + 4 * i
    # Embeddings with and without the mask, the squeezed and the expanded chunk, the last norm.
    ends = 5 * h + (3 * h + 8 * autoencoder.latent_size) / chunk_size
    # Embeddings of the chunk before, its squeezed and its shifted vector, and what the decoder's norm makes of it.
    context = autoencoder.context_chunks * (h + (block + 6 * h) / chunk_size)
    kept = tokens * (layers * block * (1 + 1 / chunk_size) + ends + context)
    logits = cross_entropy_peak(tokens, h, vocab_size, device)
    cast = trained - vocab_size * h
    kept *= AUTOCAST[precision]
    return Memory(_worker(trained, _averages(training), cast, 0.0, kept, logits, precision, device))


def evaluation_memory(
    model: LanguageModel,
    autoencoder: Autoencoder | None,
    vocab_size: int,
    evaluation: Evaluation,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Memory:
    """Peak bytes of a worker that scores a trained model with S samples a position."""
    steps = evaluation.context_length // model.chunk_size
    rows = WINDOWS_AT_ONCE * steps
    cache = 2.0 * rows * model.hidden_size / model.num_attention_heads * model.key_value_heads * model.num_layers
    reading = rows * (4.0 * model.hidden_size + 3.0 * model.intermediate_size)
    samples = max(samples_at_once(device), WINDOWS_AT_ONCE * evaluation.num_samples)
    if device == "cuda":
        # Fewer than are continued together may be all there are.
        samples = min(samples, rows * evaluation.num_samples)
    drawing = family_of(model).drawing(model, autoencoder, vocab_size, samples, device)
    # Later chunks of a sample attend to the window before them: scores, beside their mask and their softmax.
    nodes = samples * steps * model.num_attention_heads if model.chunk_size < _HORIZON else 0
    attending = 3.0 * min(nodes, MAX_SCORES[device])
    return Memory(_reader(model, autoencoder, vocab_size, cache, max(reading, drawing + attending), device))


def sampling_memory(
    model: LanguageModel,
    autoencoder: Autoencoder | None,
    vocab_size: int,
    samples: Samples,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Memory:
    """Peak bytes of a worker that writes texts with N candidates a chunk."""
    steps = (samples.prompt_tokens + samples.num_tokens) / model.chunk_size
    rows = max(samples.num_prompts, 1)
    cache = 2.0 * rows * steps * model.hidden_size / model.num_attention_heads * model.key_value_heads
    drawing = family_of(model).drawing(model, autoencoder, vocab_size, rows * samples.candidates, device)
    return Memory(_reader(model, autoencoder, vocab_size, cache * model.num_layers, drawing, device))


def _averages(training: Training) -> int:
    """Numbers of a weight's size that the optimizer keeps: Adam's two, and a moving average of the weight itself."""
    return 2 if training.weight_average is None else 3


def _worker(
    trained: float,
    averages: int,
    cast: float,
    frozen: float,
    kept: float,
    peak: float,
    precision: Precision,
    device: Literal["cpu", "cuda"],
) -> CostBreakdown:
    # Autocast keeps a copy in two bytes of the trained weights that it multiplies by, over a step.
    copies = 0.5 * cast if precision == "bf16" else 0.0
    return CostBreakdown(
        {
            "process": PROCESS_BYTES[device],
            "weights": FLOAT * (trained + frozen + copies),
            "gradients": FLOAT * trained,
            "optimizer": averages * FLOAT * trained,
            "activations": FLOAT * kept,
            "loss": FLOAT * peak,
        }
    )


def _reader(
    model: LanguageModel,
    autoencoder: Autoencoder | None,
    vocab_size: int,
    cache: float,
    peak: float,
    device: Literal["cpu", "cuda"],
) -> CostBreakdown:
    weights = parameter_count(model, autoencoder, vocab_size).total + frozen_parameters(model, autoencoder, vocab_size)
    return CostBreakdown(
        {
            "process": PROCESS_BYTES[device],
            "weights": FLOAT * weights,
            "cache": FLOAT * cache,
            "activations": FLOAT * peak,
        }
    )


def frozen_parameters(model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> float:
    """Parameters of the autoencoder that a model is built on."""
    if not model.needs_autoencoder or autoencoder is None:
        return 0.0
    return autoencoder_parameter_count(autoencoder, model.chunk_size, vocab_size).total
