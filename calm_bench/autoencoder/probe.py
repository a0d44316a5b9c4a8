"""What an autoencoder keeps, and what its latents bear: measured on held-out text.

All shares are of tokens that come back from a latent, with the standard error over chunks: the tokens of one chunk
come from one latent, so they are not independent.

A chunk is given as the tokens that its autoencoder reads, [span]: its own K, behind those of the chunk before where the
autoencoder reads that too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from calm_bench.autoencoder.model import Autoencoder
from calm_bench.finite import require_finite_weights

BLOCK = 4096
"""Chunks reconstructed at once."""
PROBE_TOKENS = 16_384
"""Tokens a probe reads at most; an accuracy of 99.9 % is then known to 0.03 %."""
COLLAPSED_BELOW = 0.01
"""A dimension has collapsed when its posterior is on average within so many nats of the prior."""
NOISE_LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)
"""Standard deviations of added noise; the prior's is 1."""
BITS = (1, 2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Accuracy:
    """Share of tokens reconstructed, with its standard error over chunks."""

    value: float
    standard_error: float
    num_tokens: int


@dataclass(frozen=True)
class AccuracyAt:
    """One point of a curve: noise's standard deviation, or bits per dimension, and what came back."""

    level: float
    accuracy: Accuracy


@dataclass(frozen=True)
class Collapse:
    """Dimensions of the latent that say nothing of the text, and what each of all says."""

    value: int
    """How many have an average KL(posterior || prior) below ``threshold`` nats."""
    standard_error: float
    """Standard error of the count: from each dimension's chance to lie on the other side of the threshold."""
    num_chunks: int
    threshold: float
    kl: tuple[float, ...]
    """Nats a chunk, by dimension."""


@dataclass(frozen=True)
class Probes:
    """All probes of one autoencoder on the same chunks."""

    chunk_size: int
    latent_size: int
    posterior_std: float
    """Average over dimensions and chunks: the noise that decoding was trained with."""
    posterior: Accuracy
    """Decoding a draw from the posterior, as the language model's targets are."""
    collapsed: Collapse
    noise: tuple[AccuracyAt, ...]
    bits: tuple[AccuracyAt, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return dataclasses.asdict(self)


@torch.no_grad()
def accuracy(model: Autoencoder, chunks: Tensor, noise: Generator | None = None) -> Accuracy:
    """Share of tokens that come back: the paper's criterion (more than 99.9 %).

    Args:
        chunks: [chunks, span] ids, on any device.
        noise: source of the posterior's draws; without it the posterior's mean is decoded, which is easier than what
            the language model will ask of the decoder.
    """
    counts = []
    for block in chunks.split(BLOCK):
        mean, log_std = _posterior(model, block)
        if noise is not None:
            mean = mean + torch.randn(mean.shape, generator=noise, device=mean.device) * log_std.exp()
        counts.append(_correct(model, mean, block))
    return _accuracy(torch.cat(counts), model.chunk_size)


@torch.no_grad()
def collapsed_dimensions(model: Autoencoder, chunks: Tensor, threshold: float = COLLAPSED_BELOW) -> Collapse:
    """Count the dimensions whose posterior equals the prior N(0, 1) whatever the chunk.

    Args:
        chunks: [chunks, span] ids.
        threshold: nats; KL(posterior || prior) averaged over chunks below which a dimension counts as collapsed.
    """
    total = torch.zeros(model.latent_size, dtype=torch.double)
    squares = torch.zeros_like(total)
    for block in chunks.split(BLOCK):
        mean, log_std = (tensor.cpu().double() for tensor in _posterior(model, block))
        kl = 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std
        total += kl.sum(0)
        squares += kl.square().sum(0)
    count = len(chunks)
    kl = total / count
    error = ((squares / count - kl.square()).clamp_min(0) / count).sqrt().clamp_min(1e-12)
    below = 0.5 * (1 + torch.erf((threshold - kl) / error / math.sqrt(2)))
    return Collapse(
        value=int((kl < threshold).sum()),
        standard_error=float((below * (1 - below)).sum().sqrt()),
        num_chunks=count,
        threshold=threshold,
        kl=tuple(round(value, 6) for value in kl.tolist()),
    )


@torch.no_grad()
def accuracy_under_noise(
    model: Autoencoder, chunks: Tensor, levels: Sequence[float], generator: Generator | None = None
) -> tuple[AccuracyAt, ...]:
    """Accuracy against noise: the latent is the posterior's mean plus ``level`` times N(0, 1).

    Every level scales the same draws, so that differences along the curve are the levels' and not the draws'.

    Args:
        chunks: [chunks, span] ids.
        levels: standard deviations, in units of the prior's.
        generator: of the draws, on the model's device.
    """
    mean = _means(model, chunks)
    normal = torch.randn(mean.shape, generator=generator, device=mean.device)
    return tuple(AccuracyAt(level, _decoded(model, mean + level * normal, chunks)) for level in levels)


@torch.no_grad()
def accuracy_when_quantised(model: Autoencoder, chunks: Tensor, bits: Sequence[int]) -> tuple[AccuracyAt, ...]:
    """Accuracy against bits: every dimension of the posterior's mean is kept as one of 2^b values.

    Uniform quantisation: a dimension's range is the smallest to the largest mean observed on ``chunks``, cut into 2^b
    equal cells, and a value becomes the middle of its cell. A token then takes b Z / K bits.

    Args:
        chunks: [chunks, span] ids.
        bits: b, each 1 or more.
    """
    mean = _means(model, chunks)
    low, high = mean.amin(0), mean.amax(0)
    return tuple(AccuracyAt(float(b), _decoded(model, quantised(mean, low, high, b), chunks)) for b in bits)


def quantised(values: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """``values`` [..., Z] between ``low`` and ``high`` [Z], moved to the middle of one of 2^bits equal cells."""
    cell = (high - low).clamp_min(torch.finfo(values.dtype).tiny) / 2**bits
    index = ((values - low) / cell).floor().clamp(0, 2**bits - 1)
    middle: Tensor = low + (index + 0.5) * cell
    return middle


def probe(model: Autoencoder, chunks: Tensor, seed: int, max_tokens: int = PROBE_TOKENS) -> Probes:
    """All probes, on a random sample of ``chunks`` [chunks, span] of at most ``max_tokens`` tokens.

    Raises:
        ValueError: ``max_tokens`` is less than one chunk, or ``chunks`` are not as the autoencoder reads them.
        NotFiniteWeights: the weights hold NaN or infinity.
    """
    require_finite_weights(model.named_parameters(), "autoencoder")
    device = next(model.parameters()).device
    if chunks.shape[1] != model.span:
        raise ValueError(f"the autoencoder reads {model.span} tokens for a chunk, found {chunks.shape[1]}")
    count = min(len(chunks), max_tokens // model.chunk_size)
    if count == 0:
        raise ValueError(f"{max_tokens} tokens are less than one chunk of {model.chunk_size}")
    # A sample of single chunks, not a stretch of text: neighbours come from one document and resemble each other.
    chosen = chunks[torch.randperm(len(chunks), generator=Generator().manual_seed(seed))[:count].to(chunks.device)]
    generator = Generator(device).manual_seed(seed)
    log_std = torch.cat([_posterior(model, block)[1] for block in chosen.split(BLOCK)])
    return Probes(
        chunk_size=model.chunk_size,
        latent_size=model.latent_size,
        posterior_std=float(log_std.exp().mean()),
        posterior=accuracy(model, chosen, generator),
        collapsed=collapsed_dimensions(model, chosen),
        noise=accuracy_under_noise(model, chosen, NOISE_LEVELS, generator),
        bits=accuracy_when_quantised(model, chosen, BITS),
    )


@torch.no_grad()
def _posterior(model: Autoencoder, chunks: Tensor) -> tuple[Tensor, Tensor]:
    own, context = _read(model, chunks)
    mean, log_std = model.encoder(own, None, context)
    return mean, log_std


def _read(model: Autoencoder, chunks: Tensor) -> tuple[Tensor, Tensor | None]:
    """Ids [chunks, K] of ids [chunks, span], and their contexts."""
    chunks = chunks.to(next(model.parameters()).device)
    own = chunks[:, -model.chunk_size :]
    return own, model.context_after(chunks[:, : -model.chunk_size]) if model.context_size else None


def _means(model: Autoencoder, chunks: Tensor) -> Tensor:
    return torch.cat([_posterior(model, block)[0] for block in chunks.split(BLOCK)])


def _decoded(model: Autoencoder, latents: Tensor, chunks: Tensor) -> Accuracy:
    blocks = zip(latents.split(BLOCK), chunks.split(BLOCK), strict=True)
    return _accuracy(torch.cat([_correct(model, *block) for block in blocks]), model.chunk_size)


def _correct(model: Autoencoder, latents: Tensor, chunks: Tensor) -> Tensor:
    """How many tokens of each chunk come back: [chunks, Z] and ids [chunks, span] -> [chunks]."""
    own, context = _read(model, chunks)
    return (model.decode(latents, context) == own).sum(1)


def _accuracy(correct: Tensor, chunk_size: int) -> Accuracy:
    shares = correct.double() / chunk_size
    count = len(shares)
    # Where all or none came back the sample shows no spread: as if one token had not.
    error = math.sqrt(max(float(shares.var(correction=0)) / count, (1 / (count * chunk_size)) ** 2))
    return Accuracy(float(shares.mean()), error, count * chunk_size)
