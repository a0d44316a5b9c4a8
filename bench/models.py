"""Models of a stated size that nobody trained, since speed depends on what weights say only through how samples agree;
and those that a study has trained, with their text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.heads.energy import EnergyHead
from calm_bench.heads.noise import OneSource
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel, load_language_model

WIDTH, LAYERS = 256, 4
SAMPLES = 8
"""Drawn at each position to see how often they agree."""
TRAINED_LENGTH = 128
"""Tokens of a window that the models of ``k-ablation`` have learned to read."""


def settings(chunk_size: int) -> LanguageModelConfig:
    """256 wide, 4 layers; the head has a block for every 4 layers, as in the paper."""
    return LanguageModelConfig.model_validate(
        {
            "kind": "calm" if chunk_size > 1 else "token",
            "chunk_size": chunk_size,
            "hidden_size": WIDTH,
            "intermediate_size": 688,
            "num_layers": LAYERS,
            "num_attention_heads": 4,
            "head": {"kind": "energy", "num_blocks": LAYERS // 4},
        }
    )


def calm(vocab_size: int, chunk_size: int = 4, autoencoder_width: int = WIDTH // 2) -> Calm:
    """With an autoencoder half as wide as the backbone, as CALM-M's is."""
    torch.manual_seed(0)
    sizes = AutoencoderConfig(
        latent_size=128, hidden_size=autoencoder_width, intermediate_size=5 * autoencoder_width // 2
    )
    model = Calm(settings(chunk_size), Autoencoder(sizes, chunk_size, vocab_size))
    assert isinstance(model.head, EnergyHead)
    torch.nn.init.normal_(model.head.final.out_proj.weight, std=WIDTH**-0.5)
    return model.eval()


def token_model(vocab_size: int) -> TokenModel:
    torch.manual_seed(0)
    return TokenModel(settings(1), vocab_size).eval()


@torch.no_grad()
def certain(model: ChunkLanguageModel) -> ChunkLanguageModel:
    """So sure of every chunk that two samples agree, without being the same for every text."""
    if isinstance(model, Calm):
        # Without its noise the head still depends on the hidden state.
        assert isinstance(model.head, EnergyHead)
        model.head.noise_embedding.weight.zero_()
    else:
        assert isinstance(model, TokenModel)
        model.lm_head.weight.mul_(1e4)
    return model


@torch.no_grad()
def agreeing(model: ChunkLanguageModel, windows: Tensor, wanted: float) -> ChunkLanguageModel:
    """Two samples begin with the same token about as often as ``wanted``, over all positions of ``windows`` [W, L]."""
    hidden = model.hidden_states(windows).flatten(0, 1)
    drawn = torch.arange(SAMPLES * len(hidden))
    if isinstance(model, Calm):
        assert isinstance(model.head, EnergyHead)
        final = model.head.final.out_proj
        final.bias.copy_(torch.randn(final.bias.shape, generator=torch.Generator().manual_seed(1)))
        changed, low, high = final.weight, 1e-4, 1e4
    else:
        assert isinstance(model, TokenModel)
        changed, low, high = model.lm_head.weight, 1e4, 1.0
    direction = changed.clone()
    for _ in range(12):
        scale = (low * high) ** 0.5
        changed.copy_(scale * direction)
        noise = OneSource(hidden, SAMPLES, torch.Generator().manual_seed(0))
        first = model.draft(hidden, noise).token(0, drawn).view(SAMPLES, -1)  # [S, P]
        pairs = (first[:, None] == first[None]).double().mean(dim=-1)  # [S, S]
        if float((pairs.sum() - len(first)) / (len(first) * (len(first) - 1))) > wanted:
            low = scale
        else:
            high = scale
    return model


@torch.no_grad()
def agreements(model: Calm, hidden: Tensor, num_samples: int = 200) -> Tensor:
    """Probability that two samples of a row are the same chunk: [B, d] -> [B]."""
    drawn = model.draw(hidden, num_samples, torch.Generator().manual_seed(0)).transpose(0, 1)  # [B, S, K]
    counts = [own.unique(dim=0, return_counts=True)[1].double() for own in drawn]
    return torch.stack([(c * (c - 1)).sum() for c in counts]) / (num_samples * (num_samples - 1))


@torch.no_grad()
def states_that_agree(model: Calm, wanted: float, batch: int) -> Tensor:
    """Hidden states [batch, d] at each of which two samples agree about as often as ``wanted``.

    The spread of the head's latents around a fixed one is set so that half of many random states agree more often,
    and the states nearest to ``wanted`` are taken.
    """
    assert isinstance(model.head, EnergyHead)
    generator = torch.Generator().manual_seed(1)
    states = torch.randn((4 * batch, WIDTH), generator=generator)
    final = model.head.final.out_proj
    direction = torch.randn(final.weight.shape, generator=generator)
    final.bias.copy_(torch.randn(final.bias.shape, generator=generator))
    low, high = 1e-4, 1.0
    for _ in range(10):
        spread = (low * high) ** 0.5
        final.weight.copy_(spread * direction)
        if float(agreements(model, states[:batch]).median()) > wanted:
            low = spread
        else:
            high = spread
    nearest = (agreements(model, states) - wanted).abs().argsort()[:batch]
    return states[nearest]


def trained_models(store: Path) -> dict[str, ChunkLanguageModel]:
    """Of each kind that the authors' code has one: ``token``, or ``K=`` and the size of a chunk."""
    found: dict[str, ChunkLanguageModel] = {}
    for folder in sorted((store / "stages" / "language_model").glob("*/model")):
        model = load_language_model(folder)
        if isinstance(model, TokenModel):
            found["token"] = model
        elif isinstance(model, Calm) and isinstance(model.head, EnergyHead):
            found[f"K={model.chunk_size}"] = model
    return found


def trained_text(store: Path, num_tokens: int) -> Tensor:
    """The beginning of the store's test text, as windows."""
    from calm_bench.tokens import TokenStream

    tokens = next(iter(sorted((store / "stages" / "tokens").iterdir())))
    text = TokenStream.open(tokens, "test")[:num_tokens].astype(np.int64)
    return torch.from_numpy(text).view(-1, TRAINED_LENGTH)
