"""The baseline's description: one token a step, softmax and cross-entropy."""

from __future__ import annotations

from calm_bench.config import Autoencoder, LanguageModel
from calm_bench.families.base import Family, Parts
from calm_bench.head_costs import FORWARD_AND_BACKWARD, Accounting
from calm_bench.part_memory import Device, cross_entropy_peak, logits_held


class TokenFamily(Family):
    name = "token"
    # A study that compares heads may set one for all its rows; a token model reads none of it.
    sections = frozenset({"head"})
    unused = frozenset({"head", "chunk_size"})
    fixed_chunk_size = 1
    network = "calm_bench.lm.token:TokenModel"
    likelihood = "exact"

    def label(self, chunk_size: int) -> str:
        return "token model"

    def short_label(self, chunk_size: int) -> str:
        return "token"

    def training_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        return {"logits": FORWARD_AND_BACKWARD * 2.0 * vocab_size * model.hidden_size}

    def inference_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        return {"logits": 2.0 * vocab_size * model.hidden_size}

    def parameters(self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> Parts:
        return {"logits": float(vocab_size * model.hidden_size)}

    def kept(self, model: LanguageModel, autoencoder: Autoencoder | None) -> float:
        return float(model.hidden_size)

    def loss_peak(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, rows: int, device: Device
    ) -> float:
        return cross_entropy_peak(rows, model.hidden_size, vocab_size, device)

    def drawing(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, samples: int, device: Device
    ) -> float:
        # Logits, probabilities and their sums.
        return 3.0 * logits_held(samples, vocab_size, device)


TOKEN = TokenFamily()
