"""Baseline of scoring: continuations drawn one position after the other, as the reference does it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

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
    cache = DynamicCache(config=model.backbone.config)
    hidden = model.backbone(
        inputs_embeds=model.embed(windows[:, : positions[-1]]), past_key_values=cache, use_cache=True
    ).last_hidden_state
    drawn = []
    for position in positions:
        steps = position // model.chunk_size
        own = DynamicCache(config=model.backbone.config)
        for index, layer in enumerate(cache.layers):
            keys, values = (kept[:, :, :steps] for kept in (layer.keys, layer.values))
            own.update(keys.repeat_interleave(num_samples, 0), values.repeat_interleave(num_samples, 0), index)
        chunks = [_draw(model, hidden[:, steps - 1].repeat_interleave(num_samples, 0))]
        while len(chunks) * model.chunk_size < horizon:
            output = model.backbone(inputs_embeds=model.embed(chunks[-1]), past_key_values=own, use_cache=True)
            chunks.append(_draw(model, output.last_hidden_state[:, -1]))
        drawn.append(torch.cat(chunks, dim=1)[:, :horizon].unflatten(0, (len(windows), num_samples)))
    return torch.stack(drawn, dim=1)


def _draw(model: ChunkLanguageModel, hidden: Tensor) -> Tensor:
    """[R, d] -> [R, K], all logits at once."""
    if isinstance(model, TokenModel):
        return torch.multinomial(model.lm_head(hidden).float().softmax(dim=-1), 1)
    assert isinstance(model, Calm)
    assert isinstance(model.head, EnergyHead)
    return model.autoencoder.logits(plain_head(model.head, hidden)).argmax(dim=-1)
