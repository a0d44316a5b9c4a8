"""What an autoencoder keeps: measured on held-out text, with the posterior's own noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from calm_bench.autoencoder.loss import reconstructed
from calm_bench.autoencoder.model import Autoencoder

BLOCK = 4096
"""Chunks reconstructed at once."""


@dataclass(frozen=True)
class Accuracy:
    """Share of tokens reconstructed, with its binomial standard error."""

    value: float
    standard_error: float
    num_tokens: int


@torch.no_grad()
def accuracy(model: Autoencoder, chunks: Tensor, noise: Generator | None = None) -> Accuracy:
    """Share of tokens that come back: the paper's criterion (more than 99.9 %).

    Args:
        chunks: [chunks, K] ids, on any device.
        noise: source of the posterior's draws; without it the posterior's mean is decoded, which is easier than what
            the language model will ask of the decoder.
    """
    device = next(model.parameters()).device
    correct = 0
    for block in chunks.split(BLOCK):
        normal = None
        if noise is not None:
            normal = torch.randn((len(block), model.latent_size), generator=noise, device=device)
        correct += int(reconstructed(model, block.to(device), normal).sum())
    count = chunks.numel()
    share = correct / count
    return Accuracy(share, math.sqrt(max(share * (1 - share), 1 / count) / count), count)
