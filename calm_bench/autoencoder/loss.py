"""The training loss of the autoencoder (paper equations 3 to 6)."""

from __future__ import annotations

from torch import Tensor

from calm_bench import blockwise
from calm_bench.autoencoder.model import Autoencoder


def clamped_kl(mean: Tensor, log_std: Tensor, clamp: float) -> Tensor:
    """KL(N(mean, std) || N(0, 1)) with every dimension held at ``clamp`` nats or more.

    The clamp takes the reward from dimensions that collapse onto the prior; without it 71 of the paper's 128 did.

    Args:
        mean: [..., Z].
        log_std: [..., Z].

    Returns:
        Scalar: summed over dimensions, averaged over chunks (equation 5).
    """
    kl = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std)
    return kl.clamp_min(clamp).sum(dim=-1).mean()


def autoencoder_loss(
    model: Autoencoder,
    tokens: Tensor,
    token_uniform: Tensor | None,
    latent_normal: Tensor,
    latent_uniform: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """K * cross-entropy + kl_weight * clamped KL, with token and latent dropout.

    Args:
        model: K and the weights of the terms come from its configuration.
        tokens: [..., K] ids; of an autoencoder that reads the chunk before, [sequences, chunks, K]. The draws have as
            many dimensions.
        token_uniform: [chunks, K] draws of U(0, 1); a token is hidden where its draw is at most ``token_dropout``.
        latent_normal: [chunks, Z] draws of N(0, 1) for the reparametrised latent.
        latent_uniform: [chunks, Z] draws of U(0, 1) for latent dropout. ``None`` switches either dropout off.

    Returns:
        The loss and its terms ``reconstruction`` (nats per token) and ``kl`` (nats per chunk, clamped).
    """
    config = model.config
    dropped = None if token_uniform is None else token_uniform <= config.token_dropout
    visible = tokens
    if dropped is not None and config.dropped_token != "mask":
        visible = tokens.masked_fill(dropped, config.dropped_token)
    context = model.contexts(visible, dropped)
    mean, log_std = model.encoder(visible, dropped, context)
    latents = mean + latent_normal * log_std.exp()
    if latent_uniform is not None:
        keep = (latent_uniform > config.latent_dropout).to(latents.dtype)
        latents = latents * keep / (1 - config.latent_dropout)
    hidden = model.decoder_hidden(latents, context)
    reconstruction = blockwise.cross_entropy(hidden.flatten(0, -2), model.encoder.embedding.weight, tokens.flatten())
    kl = clamped_kl(mean.float(), log_std.float(), config.kl_clamp)
    loss = model.chunk_size * reconstruction + config.kl_weight * kl
    return loss, {"reconstruction": reconstruction.detach(), "kl": kl.detach()}


def held_out_scores(model: Autoencoder, tokens: Tensor, latent_normal: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """:func:`autoencoder_loss` without dropout and without gradients, and what share of the tokens comes back.

    Args:
        tokens: [chunks, K] ids, or [sequences, chunks, K] as in :func:`autoencoder_loss`.
        latent_normal: [chunks, Z] draws of N(0, 1) for the reparametrised latent.

    Returns:
        The loss and ``accuracy``, ``reconstruction`` and ``kl``; the logits are made once for all of them.
    """
    config, wanted = model.config, tokens.flatten()
    context = model.contexts(tokens)
    mean, log_std = model.encoder(tokens, None, context)
    hidden = model.decoder_hidden(mean + latent_normal * log_std.exp(), context).flatten(0, -2)
    log_probabilities, likeliest = blockwise.log_probabilities_and_argmax(
        hidden, model.encoder.embedding.weight, wanted
    )
    reconstruction = -log_probabilities.mean()
    kl = clamped_kl(mean.float(), log_std.float(), config.kl_clamp)
    terms = {"accuracy": (likeliest == wanted).float().mean(), "reconstruction": reconstruction, "kl": kl}
    return model.chunk_size * reconstruction + config.kl_weight * kl, terms
