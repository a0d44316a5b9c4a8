"""CALM's description: the next chunk's latent from a generative head, on a frozen chunk autoencoder."""

from __future__ import annotations

from calm_bench.config import Autoencoder, LanguageModel
from calm_bench.families.base import Family, Parts
from calm_bench.head_config import CustomHead, EnergyHead, HeadConfig, NetworkHead, OneStepHead
from calm_bench.head_costs import FORWARD_AND_BACKWARD, Accounting, head_cost
from calm_bench.part_costs import (
    chunk_input_flops,
    chunk_input_parameters,
    context_flops,
    decoder_flops,
    decoder_logits_flops,
    encoder_flops,
)
from calm_bench.part_memory import Device, chunk_input_kept, logits_held
from calm_bench.trusted_code import check_trusted


class CalmFamily(Family):
    name = "calm"
    sections = frozenset({"head"})
    needs_autoencoder = True
    network = "calm_bench.lm.calm:Calm"
    likelihood = "bound"

    def label(self, chunk_size: int) -> str:
        return f"language model K={chunk_size}"

    def short_label(self, chunk_size: int) -> str:
        return f"K={chunk_size}"

    def draws_by_rows(self, model: LanguageModel, autoencoder: Autoencoder | None) -> bool:
        if not isinstance(model.head, CustomHead):
            return True
        check_trusted(model.head.target)
        from calm_bench.heads.custom import head_draws_by_rows

        return head_draws_by_rows(model.head, model.hidden_size, _required(autoencoder).latent_size)

    def training_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        frozen = _required(autoencoder)
        head = head_cost(model.head, model.hidden_size, frozen.latent_size, accounting)
        parts = {"input": FORWARD_AND_BACKWARD * chunk_input_flops(model), "head": head.training}
        if accounting == "implementation":
            parts["autoencoder_context"] = context_flops(frozen, model.chunk_size)
            parts["autoencoder_encoder"] = encoder_flops(frozen, model.chunk_size)
            parts["energy_score"] = head.score
        return parts

    def inference_flops(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, accounting: Accounting
    ) -> Parts:
        decoder = _required(autoencoder)
        return {
            "input": chunk_input_flops(model),
            "head": head_cost(model.head, model.hidden_size, decoder.latent_size, accounting).inference,
            "autoencoder_context": context_flops(decoder, model.chunk_size),
            "autoencoder_decoder": decoder_flops(decoder, model.chunk_size),
            "logits": decoder_logits_flops(decoder, model.chunk_size, vocab_size),
        }

    def parameters(self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int) -> Parts:
        head = head_cost(model.head, model.hidden_size, _required(autoencoder).latent_size, "implementation")
        return {"input": chunk_input_parameters(model), "head": float(head.parameters)}

    def kept(self, model: LanguageModel, autoencoder: Autoencoder | None) -> float:
        frozen = _required(autoencoder)
        latent_size = frozen.latent_size
        # A context goes along with every input and every hidden state.
        carried = 2.0 * frozen.context_chunks * frozen.hidden_size
        return chunk_input_kept(model) + carried + _head_kept(model.head, model.hidden_size, latent_size)

    def loss_peak(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, rows: int, device: Device
    ) -> float:
        # The encoder's pass over the targets keeps nothing, and is over when the head has anything to keep.
        return rows * _score_peak(model.head, _required(autoencoder).latent_size)

    def drawing(
        self, model: LanguageModel, autoencoder: Autoencoder | None, vocab_size: int, samples: int, device: Device
    ) -> float:
        frozen, head = _required(autoencoder), model.head
        width = (head.width if isinstance(head, OneStepHead | NetworkHead) else None) or model.hidden_size
        decoder = model.chunk_size * (3.0 * frozen.hidden_size + 3.0 * frozen.intermediate_size)
        return max(samples * 6.0 * width, samples * decoder) + 2.0 * logits_held(samples, vocab_size, device)


CALM = CalmFamily()


def _required(autoencoder: Autoencoder | None) -> Autoencoder:
    if autoencoder is None:
        raise ValueError("a calm model cannot be priced without its autoencoder")
    return autoencoder


def _head_kept(head: HeadConfig, hidden_size: int, latent_size: int) -> float:
    """Numbers kept of a position, by all its samples."""
    if isinstance(head, OneStepHead):
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
    """Numbers that the score of a one-step head holds of a position: distances with their gradients, target draws."""
    if not isinstance(head, OneStepHead):
        return 4.0 * latent_size
    n, m = head.num_samples, head.num_targets
    return 4.0 * n * m + 3.0 * m * latent_size + 3.0 * n * (n - 1) / 2 * latent_size
