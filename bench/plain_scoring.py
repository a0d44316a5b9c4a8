"""Baseline of scoring: continuations drawn one position after the other, as the reference does it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.plain_sampling import plain_head
from calm_bench.heads.energy import EnergyHead
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel


@torch.no_grad()
def plain_continuations(
    model: ChunkLanguageModel, windows: Tensor, positions: Sequence[int], num_samples: int, horizon: int
) -> Tensor:
    """``num_samples`` continuations at every position: [W, L] -> [W, P, S, H].

    The text is read once. At each position the part of the cache before it is copied for all samples, and these go on
    together, a chunk a step.
    """
    cache = model.new_cache()
    num_steps = positions[-1] // model.chunk_size
    everywhere = torch.arange(num_steps).expand(len(windows), -1)
    hidden = model.read(windows[:, : positions[-1]], everywhere, cache)
    drawn = []
    for position in positions:
        steps = position // model.chunk_size
        own = model.new_cache()
        for layer, text in zip(own.layers, cache.layers, strict=True):
            keys, values = (kept[:, :, :steps] for kept in (text.keys, text.values))
            layer.append(keys.repeat_interleave(num_samples, 0), values.repeat_interleave(num_samples, 0))
        chunks = [_draw(model, hidden[:, steps - 1].repeat_interleave(num_samples, 0))]
        while len(chunks) * model.chunk_size < horizon:
            here = torch.full((len(chunks[-1]), 1), steps + len(chunks) - 1)
            chunks.append(_draw(model, model.read(chunks[-1], here, own)[:, -1]))
        drawn.append(torch.cat(chunks, dim=1)[:, :horizon].unflatten(0, (len(windows), num_samples)))
    return torch.stack(drawn, dim=1)


def _draw(model: ChunkLanguageModel, hidden: Tensor) -> Tensor:
    """[R, d] -> [R, K], all logits at once."""
    if isinstance(model, TokenModel):
        return torch.multinomial(model.lm_head(hidden).float().softmax(dim=-1), 1)
    assert isinstance(model, Calm)
    assert isinstance(model.head, EnergyHead)
    return model.autoencoder.logits(plain_head(model.head, hidden)).argmax(dim=-1)
