"""Texts read bit by bit, with padding in front, against the backbone's pass over the whole text."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from calm_bench.config import LanguageModel
from calm_bench.lm import TokenModel
from calm_bench.lm.backbone import attend

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
    mask = index >= start if any(padding) else None
    cache = network.new_cache()
    place = 0
    for count in (READ, 1, 2, 1):
        part = slice(place, place + count)
        seen = None if mask is None else mask[:, : part.stop]
        positions = (index[part] - start).clamp_min(0)
        found = network.read(texts[:, part], positions, cache, seen)
        for row, pad in enumerate(padding):
            own_part = slice(max(part.start - pad, 0), part.stop - pad)
            torch.testing.assert_close(
                found[row, max(pad - part.start, 0) :], expected[row][own_part], atol=1e-5, rtol=1e-5
            )
        place = part.stop
    assert place == LENGTH
    assert {layer.length for layer in cache.layers} == {LENGTH}


@torch.no_grad()
def test_rows_that_are_kept_go_on_as_before() -> None:
    network = model(2)
    texts = torch.randint(VOCAB_SIZE, (4, LENGTH), generator=Generator().manual_seed(0))
    positions = torch.arange(LENGTH).expand(4, -1)
    cache = network.new_cache()
    network.read(texts[:, :READ], positions[:, :READ], cache)
    kept = torch.tensor([3, 1])
    cache.keep(kept)
    found = network.read(texts[kept, READ:], positions[kept, READ:], cache)
    torch.testing.assert_close(found, network.hidden_states(texts)[kept, READ:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("key_value_heads", [4, 2])
def test_a_position_that_may_look_nowhere_gets_zeros_and_no_gradient(key_value_heads: int) -> None:
    """Padding in front is such a position; NaN in it would reach the text by 0 x NaN."""
    generator = Generator().manual_seed(0)
    query = torch.randn(2, 3, 4, 8, generator=generator, requires_grad=True)
    keys, values = (torch.randn(2, key_value_heads, 5, 8, generator=generator, requires_grad=True) for _ in range(2))
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    mask[1, :2] = False
    found = attend(query, keys, values, mask)
    assert torch.equal(found[1, :2], torch.zeros_like(found[1, :2]))
    torch.testing.assert_close(found[:, 2], attend(query[:, 2:], keys, values)[:, 0])
    found.square().sum().backward()
    for tensor in (query, keys, values):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert query.grad is not None
    assert not query.grad[1, :2].any()
