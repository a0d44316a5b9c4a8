"""The description of ``block_diffusion``: masked diffusion over the tokens of a block, autoregressive over blocks."""

from __future__ import annotations

import math
from typing import Any

from calm_bench.config import Autoencoder, LanguageModel
from calm_bench.families.base import Family, Parts
from calm_bench.head_costs import FORWARD_AND_BACKWARD, Accounting
from calm_bench.part_costs import chunk_input_flops, chunk_input_parameters
from calm_bench.part_memory import Device, chunk_input_kept, cross_entropy_peak, logits_held

OVERFLOW = 1e-18
"""Bound of the probability that a micro-batch has more masked tokens than :func:`most_masked`."""


def denoiser_sizes(model: LanguageModel) -> tuple[int, int, int]:
    """Width, number of layers and intermediate size of the denoiser of ``model``."""
    width = model.denoiser.width or model.hidden_size
    return width, model.denoiser.num_layers, model.denoiser.intermediate_size or 2 * width


def denoising_steps(model: LanguageModel) -> int:
    """Passes of the denoiser behind a sample of ``model``."""
    return model.denoiser.num_steps or model.chunk_size


def most_masked(rows: int, size: int) -> int:
    """Masked tokens of R blocks of K that are computed where shapes are fixed: a number that chance exceeds with a
    probability below :data:`OVERFLOW` (Hoeffding's inequality for m of each row, independent in 1 to K)."""
    margin = (size - 1) * math.sqrt(rows * math.log(1 / OVERFLOW) / 2)
    return min(rows * size, math.ceil(rows * (size + 1) / 2 + margin))


class BlockDiffusionFamily(Family):
    name = "block_diffusion"
    sections = frozenset({"denoiser"})
    network = "calm_bench.lm.block_diffusion:BlockDiffusionModel"
    likelihood = "bound"
    # 3: gradients of the logits come from the forward pass, summed in fp32; see calm_bench.blockwise.
    revision = 3

    def problem(self, model: Any) -> str | None:
        denoiser, size = model.denoiser, model.chunk_size
        if denoiser.block_length not in (None, size):
            return (
                f"model.denoiser.block_length {denoiser.block_length} is not model.chunk_size {size}, the tokens of a "
                "block: leave it unset"
            )
        if denoiser.num_steps is not None and denoiser.num_steps > size:
            return (
                f"model.denoiser.num_steps {denoiser.num_steps} is more than the {size} tokens of a block "
                "(model.chunk_size): every step makes one token known at least"
            )
        width = denoiser.width or model.hidden_size
        if width % (2 * model.num_attention_heads):
            return (
                f"model.denoiser.width {width} is not a multiple of twice model.num_attention_heads "
                f"{model.num_attention_heads}"
            )
        return None

    def training_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        width = denoiser_sizes(model)[0]
        # On the average (K + 1) / 2 tokens of a block are masked, and only these need logits.
        logits = 2.0 * (model.chunk_size + 1) / 2 * width * vocab_size
        return {
            "input": FORWARD_AND_BACKWARD * chunk_input_flops(model),
            "head": FORWARD_AND_BACKWARD * _pass(model),
            "logits": FORWARD_AND_BACKWARD * logits,
        }

    def inference_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        return {
            "input": chunk_input_flops(model),
            "head": denoising_steps(model) * _pass(model),
            "logits": 2.0 * model.chunk_size * denoiser_sizes(model)[0] * vocab_size,
        }

    def parameters(self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> Parts:
        d, (w, layers, i) = model.hidden_size, denoiser_sizes(model)
        head = d + (d + 1) * w + (d + 1) * model.chunk_size * w + layers * (4 * w * w + 3 * w * i + 2 * w) + w
        return {"input": chunk_input_parameters(model), "head": float(head), "logits": float(w * vocab_size)}

    def kept(self, model: LanguageModel, autoencoder: Autoencoder | None) -> float:
        w, layers, i = denoiser_sizes(model)
        token = 2.0 * model.hidden_size + layers * (11.0 * w + 4.0 * i) + 4 * w
        return chunk_input_kept(model) + model.chunk_size * token

    def loss_peak(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, rows: int, device: Device
    ) -> float:
        size = model.chunk_size
        masked = rows * (size + 1) / 2 if device == "cpu" else most_masked(rows, size)
        return cross_entropy_peak(masked, denoiser_sizes(model)[0], vocab_size, device)

    def drawing(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, samples: int, device: Device
    ) -> float:
        w, _, i = denoiser_sizes(model)
        held = logits_held(samples * model.chunk_size, vocab_size, device)
        return min(samples * model.chunk_size, held / vocab_size) * (8.0 * w + 3.0 * i) + 3.0 * held


BLOCK_DIFFUSION = BlockDiffusionFamily()


def _pass(model: LanguageModel) -> float:
    """FLOPs of one pass of the denoiser over a block."""
    d, size, (w, layers, i) = model.hidden_size, model.chunk_size, denoiser_sizes(model)
    weights = d * size * w + size * (d * w + layers * (4 * w * w + 3 * w * i))
    return 2.0 * weights + 4.0 * size * size * w * layers
