"""A step without transformers' own loop, against the backbone's pass over the whole text."""

from __future__ import annotations

import pytest
import torch
from torch import Generator
from transformers import DynamicCache

from calm_bench.config import LanguageModel
from calm_bench.lm import TokenModel
from calm_bench.lm.step import step

VOCAB_SIZE, LENGTH, READ = 11, 9, 5


def model(key_value_heads: int) -> TokenModel:
    torch.manual_seed(0)
    config = LanguageModel(
        kind="token",
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        rope_theta=500.0,
        rms_norm_eps=1e-2,
    )
    return TokenModel(config, VOCAB_SIZE).eval()


@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("padding", [[0, 0, 0], [0, 2, 4]])
@torch.no_grad()
def test_steps_give_the_hidden_states_of_the_whole_text(key_value_heads: int, padding: list[int]) -> None:
    network = model(key_value_heads)
    texts = torch.randint(VOCAB_SIZE, (3, LENGTH), generator=Generator().manual_seed(0))
    own = [text[pad:] for text, pad in zip(texts, padding, strict=True)]
    expected = [network.hidden_states(text[None])[0] for text in own]
    start = torch.tensor(padding)[:, None]
    index = torch.arange(LENGTH)
    mask = (index >= start).long() if any(padding) else None
    cache = DynamicCache(config=network.backbone.config)
    network.backbone(
        inputs_embeds=network.embed(texts[:, :READ]),
        attention_mask=None if mask is None else mask[:, :READ],
        position_ids=(index[:READ] - start).clamp_min(0),
        past_key_values=cache,
        use_cache=True,
    )
    for place in range(READ, LENGTH):
        seen = None if mask is None else mask[:, : place + 1]
        found = step(network.backbone, network.embed(texts[:, place]), place - start, cache, seen)
        for row, pad in enumerate(padding):
            torch.testing.assert_close(found[row], expected[row][place - pad], atol=1e-5, rtol=1e-5)
    assert cache.get_seq_length() == LENGTH
