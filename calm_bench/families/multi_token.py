"""The description of ``multi_token``: a chunk backbone with K independent softmaxes on one hidden state."""

from __future__ import annotations

from calm_bench.config import Autoencoder, LanguageModel
from calm_bench.families.base import Family, Parts
from calm_bench.head_costs import FORWARD_AND_BACKWARD, Accounting
from calm_bench.part_costs import chunk_input_flops, chunk_input_parameters
from calm_bench.part_memory import Device, chunk_input_kept, cross_entropy_peak, logits_held


class MultiTokenFamily(Family):
    name = "multi_token"
    sections = frozenset()
    network = "calm_bench.lm.multi_token:MultiTokenModel"
    likelihood = "exact"

    def training_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        forward = self.inference_flops(model, autoencoder, vocab_size, accounting)
        return {name: FORWARD_AND_BACKWARD * flops for name, flops in forward.items()}

    def inference_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        size, d = model.chunk_size, model.hidden_size
        return {
            "input": chunk_input_flops(model),
            "head": 2.0 * size * 3 * d * model.intermediate_size,
            "logits": 2.0 * size * d * vocab_size,
        }

    def parameters(self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> Parts:
        d = model.hidden_size
        return {
            "input": chunk_input_parameters(model),
            "head": float(model.chunk_size * (3 * d * model.intermediate_size + 2 * d)),
            "logits": float(d * vocab_size),
        }

    def kept(self, model: LanguageModel, autoencoder: Autoencoder | None) -> float:
        head = 4.0 * model.hidden_size + 4.0 * model.intermediate_size
        return chunk_input_kept(model) + model.chunk_size * head

    def loss_peak(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, rows: int, device: Device
    ) -> float:
        return cross_entropy_peak(rows * model.chunk_size, model.hidden_size, vocab_size, device)

    def drawing(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, samples: int, device: Device
    ) -> float:
        states = samples * float(model.chunk_size * model.hidden_size + 3 * model.intermediate_size)
        return states + 3.0 * logits_held(samples, vocab_size, device)


MULTI_TOKEN = MultiTokenFamily()
