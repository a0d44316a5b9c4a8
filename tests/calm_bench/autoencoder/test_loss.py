"""The autoencoder's loss against the formulas as the paper writes them, every draw injected."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from calm_bench.autoencoder import Autoencoder
from calm_bench.autoencoder.loss import autoencoder_loss, clamped_kl
from calm_bench.config import Autoencoder as AutoencoderConfig

CHUNKS, CHUNK_SIZE, LATENT, VOCAB_SIZE = 6, 3, 4, 17


def model(**settings: object) -> Autoencoder:
    torch.manual_seed(0)
    sizes = {"latent_size": LATENT, "hidden_size": 8, "intermediate_size": 12, "kl_weight": 0.05}
    return Autoencoder(AutoencoderConfig.model_validate({**sizes, **settings}), CHUNK_SIZE, VOCAB_SIZE)


def draws() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, VOCAB_SIZE, (CHUNKS, CHUNK_SIZE), generator=generator)
    token_uniform = torch.rand((CHUNKS, CHUNK_SIZE), generator=generator)
    normal = torch.randn((CHUNKS, LATENT), generator=generator)
    return tokens, token_uniform, normal, torch.rand((CHUNKS, LATENT), generator=generator)


@pytest.mark.parametrize("dropped_token", ["mask", 0])
def test_it_is_k_times_cross_entropy_plus_weighted_kl(dropped_token: str | int) -> None:
    ae = model(dropped_token=dropped_token, token_dropout=0.4, latent_dropout=0.3)
    tokens, token_uniform, normal, latent_uniform = draws()
    hidden_tokens = token_uniform <= 0.4
    assert hidden_tokens.any()
    if dropped_token == "mask":
        mean, log_std = ae.encoder(tokens, hidden_tokens)
    else:
        mean, log_std = ae.encoder(tokens.masked_fill(hidden_tokens, 0))
    latents = (mean + normal * log_std.exp()) * (latent_uniform > 0.3) / 0.7
    cross_entropy = functional.cross_entropy(ae.logits(latents).flatten(0, 1), tokens.flatten())
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(0.0, 1.0)
    )
    expected = CHUNK_SIZE * cross_entropy + 0.05 * kl.clamp_min(0.5).sum(-1).mean()
    loss, terms = autoencoder_loss(ae, tokens, token_uniform, normal, latent_uniform)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(terms["reconstruction"], cross_entropy.detach())


def test_a_hidden_token_is_not_seen_but_still_asked_for() -> None:
    ae = model()
    tokens, _, normal, _ = draws()
    hide_first = torch.ones(CHUNKS, CHUNK_SIZE)
    hide_first[:, 0] = 0.0
    others = tokens.clone()
    others[:, 0] = tokens[:, 0] % (VOCAB_SIZE - 1) + 1
    seen = ae.encoder(tokens, hide_first == 0)
    assert torch.equal(seen[0], ae.encoder(others, hide_first == 0)[0])
    assert not torch.equal(seen[0], ae.encoder(others)[0])
    here, _ = autoencoder_loss(ae, tokens, hide_first, normal, None)
    there, _ = autoencoder_loss(ae, others, hide_first, normal, None)
    assert here != there


def test_a_collapsed_dimension_costs_the_clamp_and_has_no_gradient() -> None:
    mean = torch.tensor([[0.0, 3.0]], requires_grad=True)
    kl = clamped_kl(mean, torch.zeros(1, 2), clamp=0.5)
    kl.backward()
    assert kl.item() == pytest.approx(0.5 + 4.5)
    assert mean.grad is not None
    assert mean.grad.tolist() == [[0.0, 3.0]]
