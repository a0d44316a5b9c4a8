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

from calm_bench.config import Autoencoder, Evaluation, LanguageModel, Samples, Training
from calm_bench.flops import CostBreakdown, autoencoder_parameter_count, parameter_count
from calm_bench.head_config import EnergyHead, HeadConfig, NetworkHead

Precision = Literal["fp32", "bf16"]

FLOAT = 4
"""Bytes of a number in fp32."""
MAX_LOGITS = 1 << 24
MAX_LOGITS_ON_GPU = 1 << 29
CACHED_LOGITS = 1 << 22
"""As in :mod:`calm_bench.blockwise`, which cannot be imported without torch; a test compares them."""
BLOCK_SAMPLES = 4096
"""As in :mod:`calm_bench.sampling.continuations`."""
MAX_SCORES = 1 << 23
"""As in :mod:`calm_bench.lm.tree`."""
WINDOWS_AT_ONCE = 16
"""As in :mod:`evals.evaluate`."""
_HORIZON = 4
"""Tokens of the longest scored n-gram."""
PROCESS_BYTES = {"cpu": 3.1e8, "cuda": 4.3e8}
"""Python with torch, transformers and what a stage imports; on a GPU, CUDA's context and cuBLAS's workspace there."""
AUTOCAST = {"fp32": 1.0, "bf16": 0.6}
"""Share of its size in fp32 that an activation takes: in bf16 matrix products have two bytes a number,
norms and losses keep four."""


@dataclass(frozen=True)
class Memory:
    """Bytes by part at the worst moment of one kind of work."""

    parts: CostBreakdown = field(default_factory=CostBreakdown)

    @property
    def total(self) -> float:
        return self.parts.total


def training_memory(
    model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, device: Literal["cpu", "cuda"] = "cpu"
) -> Memory:
    """Peak bytes of a worker that trains ``model`` at the micro-batch of its configuration."""
    training = model.training
    precision = _precision(training, device)
    trained = parameter_count(model, autoencoder, vocab_size).total
    frozen = 0.0
    sequences = training.batch_size // training.gradient_accumulation
    steps = training.sequence_length // model.chunk_size - 1
    rows = sequences * max(steps, 1)
    kept = rows * (_backbone_kept(model) + _input_kept(model))
    peak = 0.0
    if model.kind == "token":
        peak = _cross_entropy(rows, model.hidden_size, vocab_size, device)
    elif autoencoder is not None:
        frozen = autoencoder_parameter_count(autoencoder, model.chunk_size, vocab_size).total
        kept += rows * _head_kept(model.head, model.hidden_size, autoencoder.latent_size)
        # The encoder's pass over the targets keeps nothing, and is over when the head's backward pass begins.
        peak = max(
            rows * _score_peak(model.head, autoencoder.latent_size),
            rows * _encoder_transient(autoencoder, model.chunk_size),
        )
    return Memory(_worker(trained, frozen, kept, peak, precision, device))


def autoencoder_training_memory(
    autoencoder: Autoencoder, chunk_size: int, vocab_size: int, device: Literal["cpu", "cuda"] = "cpu"
) -> Memory:
    """Peak bytes of a worker that trains ``autoencoder`` at the micro-batch of its configuration."""
    training = autoencoder.training
    precision = _precision(training, device)
    trained = autoencoder_parameter_count(autoencoder, chunk_size, vocab_size).total
    tokens = training.batch_size // training.gradient_accumulation * training.sequence_length
    h, i = autoencoder.hidden_size, autoencoder.intermediate_size
    layers = (autoencoder.num_encoder_layers + autoencoder.num_decoder_layers) / 2
    block = 3 * h + 4 * i
    # Embeddings with and without the mask, the squeezed and the expanded chunk, the last norm.
    ends = 5 * h + (3 * h + 8 * autoencoder.latent_size) / chunk_size
    kept = tokens * (layers * block * (1 + 1 / chunk_size) + ends)
    logits = _cross_entropy(tokens, h, vocab_size, device)
    return Memory(_worker(trained, 0.0, kept, logits, precision, device))


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
    samples = max(BLOCK_SAMPLES, WINDOWS_AT_ONCE * evaluation.num_samples)
    drawing = _drawing(model, autoencoder, vocab_size, samples, device)
    # Later chunks of a sample attend to the window before them: scores, beside their mask and their softmax.
    nodes = samples * steps * model.num_attention_heads if model.chunk_size < _HORIZON else 0
    attending = 3.0 * min(nodes, MAX_SCORES)
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
    drawing = _drawing(model, autoencoder, vocab_size, rows * samples.candidates, device)
    return Memory(_reader(model, autoencoder, vocab_size, cache * model.num_layers, drawing, device))


def _cross_entropy(rows: float, width: int, vocab_size: int, device: Literal["cpu", "cuda"]) -> float:
    """Numbers of :func:`calm_bench.blockwise.cross_entropy`: a block's logits and their logarithms, which become the
    gradient, and the gradients of the inputs and of the weights."""
    block = min(rows * vocab_size, MAX_LOGITS if device == "cpu" else MAX_LOGITS_ON_GPU)
    return 2.0 * block + rows * width + vocab_size * width


def _worker(
    trained: float,
    frozen: float,
    kept: float,
    peak: float,
    precision: Precision,
    device: Literal["cpu", "cuda"],
) -> CostBreakdown:
    # Autocast keeps a copy of the weights in two bytes over a step.
    copies = 0.5 if precision == "bf16" else 0.0
    return CostBreakdown(
        {
            "process": PROCESS_BYTES[device],
            "weights": FLOAT * (1 + copies) * (trained + frozen),
            "gradients": FLOAT * trained,
            "optimizer": 2 * FLOAT * trained,
            "activations": FLOAT * AUTOCAST[precision] * kept,
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
    weights = parameter_count(model, autoencoder, vocab_size).total
    if model.kind == "calm" and autoencoder is not None:
        weights += autoencoder_parameter_count(autoencoder, model.chunk_size, vocab_size).total
    return CostBreakdown(
        {
            "process": PROCESS_BYTES[device],
            "weights": FLOAT * weights,
            "cache": FLOAT * cache,
            "activations": FLOAT * peak,
        }
    )


def _precision(training: Training, device: str) -> Precision:
    if training.precision == "auto":
        return "bf16" if device == "cuda" else "fp32"
    return training.precision


def _backbone_kept(model: LanguageModel) -> float:
    """Numbers that a backward pass needs of a row: two norms with input and result, q, k, v, attention, SwiGLU."""
    d = model.hidden_size
    return model.num_layers * (11.0 * d + 4.0 * model.intermediate_size) + 3 * d


def _input_kept(model: LanguageModel) -> float:
    if model.kind == "token":
        return float(model.hidden_size)
    return model.hidden_size * (model.chunk_size + 2 + 2 + 1 + 1.0)


def _head_kept(head: HeadConfig, hidden_size: int, latent_size: int) -> float:
    """Numbers kept of a position, by all its samples."""
    if isinstance(head, EnergyHead):
        w = head.width or hidden_size
        each = head.num_blocks * 11.0 * w + 6 * w + head.noise_size + 2 * latent_size
        return head.num_samples * each + (2 + head.num_blocks) * w
    if isinstance(head, NetworkHead):
        w = head.width or hidden_size
        # The condition differs from sample to sample by the time, so the modulation is kept for each.
        each = head.num_blocks * 13.0 * w + 8 * w + 2 * head.time_features + 4 * latent_size
        return head.num_samples * each + w
    # A head from elsewhere: as much as an energy head of the backbone's width.
    return _head_kept(EnergyHead(), hidden_size, latent_size)


def _score_peak(head: HeadConfig, latent_size: int) -> float:
    """Numbers that the energy score holds of a position: its distances with their gradients, and the target draws."""
    if not isinstance(head, EnergyHead):
        return 4.0 * latent_size
    n, m = head.num_samples, head.num_targets
    return 4.0 * n * m + 3.0 * m * latent_size + 3.0 * n * (n - 1) / 2 * latent_size


def _encoder_transient(autoencoder: Autoencoder, chunk_size: int) -> float:
    """Numbers of a chunk that the frozen encoder holds at a time."""
    return chunk_size * (3.0 * autoencoder.hidden_size + 3.0 * autoencoder.intermediate_size)


def _drawing(
    model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, samples: int, device: str
) -> float:
    """Numbers held while ``samples`` chunks are drawn and decoded."""
    logits = float(max(CACHED_LOGITS if device == "cpu" else MAX_LOGITS, 128 * vocab_size))
    if model.kind == "token" or autoencoder is None:
        # Logits, probabilities and their sums.
        return 3.0 * min(logits, samples * float(vocab_size))
    head = model.head
    width = (head.width if isinstance(head, EnergyHead | NetworkHead) else None) or model.hidden_size
    decoder = model.chunk_size * (3.0 * autoencoder.hidden_size + 3.0 * autoencoder.intermediate_size)
    return max(samples * 6.0 * width, samples * decoder) + 2.0 * min(logits, samples * float(vocab_size))
