"""Baselines: the formulas of sampling written down plainly, as the reference does it, on this project's weights."""

from __future__ import annotations

import math
import random
from collections import Counter

import torch
from torch import Tensor
from torch.nn import functional

from calm_bench.heads.energy import EnergyHead
from calm_bench.lm import Calm, TokenModel


def plain_head(head: EnergyHead, hidden: Tensor) -> Tensor:
    """One latent per hidden state, [P, d] -> [P, Z]; samples of one state are rows like any other."""
    noise = torch.rand(len(hidden), head.config.noise_size) - 0.5
    condition = head.hidden_norm(head.hidden_embedding(hidden))
    x = head.noise_norm(head.noise_embedding(noise))
    for block in head.blocks:
        y = block.in_proj(torch.cat([block.norm(x), condition], dim=-1))
        gate, up = block.out_proj(functional.silu(block.mid_proj(functional.silu(y)))).chunk(2, dim=-1)
        x = x + block.down_proj(functional.silu(gate) * up)
    latent: Tensor = head.final(x)
    return latent


@torch.no_grad()
def plain_batch_sampling(model: Calm, hidden: Tensor, temperature: float, num_candidates: int = 200) -> Tensor:
    """Algorithm 2 with T = 1/n: [B, d] -> [B, K]. All logits at once, candidates counted in Python."""
    n = round(1 / temperature)
    assert isinstance(model.head, EnergyHead)
    latents = plain_head(model.head, hidden.repeat_interleave(num_candidates, dim=0))
    chunks = model.autoencoder.logits(latents).argmax(dim=-1).view(len(hidden), num_candidates, -1)
    selected = []
    for row in range(len(hidden)):
        counts = Counter(tuple(chunks[row, index].tolist()) for index in range(num_candidates))
        for exponent in range(n, 0, -1):
            weights = {chunk: math.comb(count, exponent) for chunk, count in counts.items() if count >= exponent}
            if weights:
                selected.append(random.choices(list(weights), weights=list(weights.values()))[0])
                break
    return torch.tensor(selected)


@torch.no_grad()
def plain_token_generation(model: TokenModel, prompts: Tensor, max_new_tokens: int) -> Tensor:
    """One token a step with a key-value cache: [B, L] -> [B, max_new_tokens]."""
    cache = model.new_cache()
    tokens, generated = prompts, []
    positions = torch.arange(prompts.shape[1]).expand(len(prompts), -1)
    for _ in range(max_new_tokens):
        hidden = model.read(tokens, positions, cache)[:, -1]
        positions = positions[:, -1:] + 1
        probabilities = model.lm_head(hidden).float().softmax(dim=-1)
        tokens = torch.multinomial(probabilities, 1)
        generated.append(tokens)
    return torch.cat(generated, dim=1)
