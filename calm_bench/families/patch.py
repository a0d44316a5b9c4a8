"""The description of ``patch``: a chunk backbone with a small autoregressive decoder inside each chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calm_bench.config import Autoencoder, LanguageModel
from calm_bench.families.base import Family, Parts
from calm_bench.head_costs import FORWARD_AND_BACKWARD, Accounting
from calm_bench.part_costs import chunk_input_flops, chunk_input_parameters
from calm_bench.part_memory import Device, chunk_input_kept, cross_entropy_peak, logits_held


@dataclass(frozen=True)
class DecoderSizes:
    """The sizes of a chunk decoder, with what is unset in the configuration filled in."""

    width: int
    layers: int
    intermediate: int
    output: int
    """Width of what the softmax reads."""
    projects_hidden: bool
    """Whether recurrent layers begin with a projection of the hidden state, which one of its width does not need."""


def decoder_sizes(model: LanguageModel) -> DecoderSizes:
    """The sizes of the decoder of ``model``."""
    decoder = model.decoder
    width = decoder.width or model.hidden_size
    intermediate = decoder.intermediate_size or 2 * width
    output = intermediate if decoder.kind == "gru" else width
    projects_hidden = decoder.num_layers > 1 or width != model.hidden_size
    return DecoderSizes(width, decoder.num_layers, intermediate, output, projects_hidden)


class PatchFamily(Family):
    name = "patch"
    sections = frozenset({"decoder"})
    network = "calm_bench.lm.patch:PatchModel"
    likelihood = "exact"
    revision = 2

    def problem(self, model: Any) -> str | None:
        width = model.decoder.width or model.hidden_size
        if model.decoder.kind == "transformer" and width % (2 * model.num_attention_heads):
            return (
                f"model.decoder.width {width} is not a multiple of twice model.num_attention_heads "
                f"{model.num_attention_heads}"
            )
        return None

    def training_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        # All of a chunk's places attend to all in one product, masked.
        forward = _forward(model, vocab_size, pairs=model.chunk_size**2)
        return {name: FORWARD_AND_BACKWARD * flops for name, flops in forward.items()}

    def inference_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        # One place after the other attends to itself and to those before.
        return _forward(model, vocab_size, pairs=model.chunk_size * (model.chunk_size + 1) // 2)

    def parameters(self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> Parts:
        d, sizes = model.hidden_size, decoder_sizes(model)
        w, i, layers = sizes.width, sizes.intermediate, sizes.layers
        if model.decoder.kind == "gru":
            # Each cell has three gates, with a bias for its input and one for its state.
            cells = 3 * (d * w + w * w + 2 * w) + (layers - 1) * 3 * (2 * w * w + 2 * w)
            projection = (d + 1) * layers * w if sizes.projects_hidden else 0
            head = d + projection + cells + (w + 1) * i
        else:
            head = d + (d + 1) * w + (d + 1) * model.chunk_size * w + layers * (4 * w * w + 3 * w * i + 2 * w) + w
        return {
            "input": chunk_input_parameters(model),
            "head": float(head),
            "logits": float(sizes.output * vocab_size),
        }

    def kept(self, model: LanguageModel, autoencoder: Autoencoder | None) -> float:
        size, sizes = model.chunk_size, decoder_sizes(model)
        w, i = sizes.width, sizes.intermediate
        # Of a cell: its input, its state before and five gates' worth; of a layer: as in the backbone.
        layer = 7.0 * w if model.decoder.kind == "gru" else 11.0 * w + 4.0 * i
        return chunk_input_kept(model) + size * (model.hidden_size + sizes.layers * layer + w + 2 * i)

    def loss_peak(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, rows: int, device: Device
    ) -> float:
        return cross_entropy_peak(rows * model.chunk_size, decoder_sizes(model).output, vocab_size, device)

    def drawing(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, samples: int, device: Device
    ) -> float:
        sizes = decoder_sizes(model)
        held = model.chunk_size * 2 * sizes.layers if model.decoder.kind == "transformer" else sizes.layers
        # Logits, probabilities and their sums beside the states of the chunks.
        return samples * float((held + 4) * sizes.width) + 3.0 * logits_held(samples, vocab_size, device)


PATCH = PatchFamily()


def _forward(model: LanguageModel, vocab_size: int, pairs: int) -> dict[str, float]:
    """FLOPs of a chunk's forward pass, in which a transformer's layer compares ``pairs`` places."""
    size, d, sizes = model.chunk_size, model.hidden_size, decoder_sizes(model)
    w, i, layers = sizes.width, sizes.intermediate, sizes.layers
    if model.decoder.kind == "gru":
        cells = 3 * (d * w + w * w) + (layers - 1) * 6 * w * w
        projection = d * layers * w if sizes.projects_hidden else 0
        head = 2.0 * (projection + size * (cells + w * i))
    else:
        head = 2.0 * (d * size * w + size * (d * w + layers * (4 * w * w + 3 * w * i))) + 4.0 * pairs * w * layers
    return {
        "input": chunk_input_flops(model),
        "head": head,
        "logits": 2.0 * size * sizes.output * vocab_size,
    }
