"""The backbone against transformers' Llama: names, first weights and hidden states."""

from __future__ import annotations

import pytest
import torch
import transformers

from calm_bench.lm.backbone import Backbone

VOCABULARY, WIDTH, INNER, LAYERS, HEADS = 11, 32, 48, 2, 4
THETA, EPS = 10_000.0, 1e-5


def both(key_value_heads: int) -> tuple[Backbone, transformers.LlamaModel]:
    """Under the same seed."""
    torch.manual_seed(3)
    ours = Backbone(VOCABULARY, WIDTH, INNER, LAYERS, HEADS, key_value_heads, THETA, EPS)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=key_value_heads,
        rms_norm_eps=EPS,
        initializer_range=WIDTH**-0.5,
        pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )
    torch.manual_seed(3)
    return ours, transformers.LlamaModel(config).eval()


@pytest.mark.parametrize("key_value_heads", [4, 2])
def test_it_begins_as_llama_does_and_computes_what_llama_computes(key_value_heads: int) -> None:
    ours, theirs = both(key_value_heads)
    mine, others = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[name], others[name]) for name in others)
    tokens = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            ours(ours.embed_tokens(tokens)), theirs(tokens).last_hidden_state, rtol=1e-5, atol=1e-5
        )
