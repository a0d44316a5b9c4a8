"""A model of every kind that is trained, and its loss as a function of tokens and noise that was drawn before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from calm_bench.autoencoder import Autoencoder
from calm_bench.autoencoder.loss import autoencoder_loss
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.family_registry import FAMILIES
from calm_bench.heads import HEADS as HEAD_CLASSES
from calm_bench.heads.base import PureHead
from calm_bench.lm import Calm, ChunkLanguageModel
from calm_bench.lm.block_diffusion import BlockDiffusionModel
from calm_bench.lm.folder import build_language_model

VOCAB_SIZE, CHUNK_SIZE, LENGTH = 50, 2, 32
HEADS = {
    "energy": {"kind": "energy", "num_blocks": 1, "noise_size": 4, "num_samples": 4, "num_targets": 5},
    "diffusion": {"kind": "diffusion", "num_blocks": 1, "num_steps": 5},
    "diffusion of the noise": {"kind": "diffusion", "objective": "noise", "num_blocks": 1, "num_steps": 5},
    "flow": {"kind": "flow", "num_blocks": 1, "num_steps": 2},
    "shortcut": {"kind": "shortcut", "num_blocks": 1},
    "mean_flow": {"kind": "mean_flow", "num_blocks": 1},
    "drifting": {"kind": "drifting", "num_blocks": 1, "noise_size": 4, "num_samples": 4, "num_targets": 5},
}
KINDS = ["autoencoder", "token", "patch", "multi_token", "block_diffusion", *HEADS]
"""What is traced whole."""
FAMILY_KINDS = [name for name in FAMILIES.names() if name not in ("calm", "custom")]
HEAD_KINDS = [*HEADS, *(name for name in HEAD_CLASSES.names() if name not in HEADS and name != "custom")]
LANGUAGE_MODELS = [*FAMILY_KINDS, *HEAD_KINDS]
"""What is registered: families of models, and heads of CALM, one more of them with another objective."""
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_attention_heads": 4}
AUTOENCODER_SIZES = {"latent_size": 4, "hidden_size": 16, "intermediate_size": 24}


@dataclass(frozen=True)
class Case:
    """Everything that a loss needs; ``loss(tokens, noise)`` draws nothing."""

    module: nn.Module
    loss: Callable[[Tensor, tuple[Tensor, ...]], Tensor]
    noise: Callable[[Tensor], tuple[Tensor, ...]]


def autoencoder(chunk_size: int = CHUNK_SIZE) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(AutoencoderConfig.model_validate(AUTOENCODER_SIZES), chunk_size, VOCAB_SIZE)


def settings_of(kind: str) -> dict[str, Any]:
    """Settings of ``model``."""
    sizes = {**SIZES, "num_key_value_heads": 2}
    if kind in FAMILY_KINDS:
        return {**sizes, "kind": kind, "chunk_size": FAMILIES.get(kind).fixed_chunk_size or CHUNK_SIZE}
    return {**sizes, "chunk_size": CHUNK_SIZE, "head": HEADS.get(kind, {"kind": kind})}


def language_model(kind: str, **changed: Any) -> ChunkLanguageModel:
    """Of :func:`settings_of`, with what is ``changed``."""
    config = LanguageModel.model_validate(settings_of(kind) | changed)
    inner = autoencoder(config.chunk_size) if config.needs_autoencoder else None
    return build_language_model(config, VOCAB_SIZE, inner, seed=0)


def tokens(batch_size: int) -> Tensor:
    return torch.randint(VOCAB_SIZE, (batch_size, LENGTH), generator=Generator().manual_seed(batch_size))


def case(kind: str) -> Case:
    if kind == "autoencoder":
        return _autoencoder_case(autoencoder())
    model = language_model(kind)
    if isinstance(model, BlockDiffusionModel):
        return Case(model, lambda batch, noise: model.loss_given(batch, *noise)[0], _block_noise)
    if not isinstance(model, Calm):
        return Case(model, lambda batch, noise: model.loss(batch)[0], lambda batch: ())
    head = model.head
    assert isinstance(head, PureHead)

    def loss(batch: Tensor, noise: tuple[Tensor, ...]) -> Tensor:
        hidden = model.hidden_states(batch[:, :-CHUNK_SIZE])
        with torch.no_grad():
            mean, log_std = model.autoencoder.encode(batch[:, CHUNK_SIZE:])
        return head.loss_given(hidden.flatten(0, 1), mean.flatten(0, 1), log_std.flatten(0, 1), noise)[0]

    def noise(batch: Tensor) -> tuple[Tensor, ...]:
        positions = batch.shape[0] * (LENGTH // CHUNK_SIZE - 1)
        return head.noise(torch.empty(positions, model.autoencoder.latent_size), Generator().manual_seed(1))

    return Case(model, loss, noise)


def _block_noise(batch: Tensor) -> tuple[Tensor, ...]:
    blocks = batch.shape[0] * (LENGTH // CHUNK_SIZE - 1)
    return (torch.rand((blocks, 1 + CHUNK_SIZE), generator=Generator().manual_seed(1)),)


def _autoencoder_case(model: Autoencoder) -> Case:
    def loss(batch: Tensor, noise: tuple[Tensor, ...]) -> Tensor:
        return autoencoder_loss(model, batch.reshape(-1, CHUNK_SIZE), *noise)[0]

    def noise(batch: Tensor) -> tuple[Tensor, ...]:
        chunks = batch.numel() // CHUNK_SIZE
        generator, latent = Generator().manual_seed(1), (chunks, model.latent_size)
        return (
            torch.rand((chunks, CHUNK_SIZE), generator=generator),
            torch.randn(latent, generator=generator),
            torch.rand(latent, generator=generator),
        )

    return Case(model, loss, noise)
