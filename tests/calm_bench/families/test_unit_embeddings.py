"""What a decoder inside a chunk reads: tokens and hidden states of one size, or tokens would hardly count at first."""

from __future__ import annotations

import pytest
import torch

from calm_bench.config import LanguageModel
from calm_bench.lm.chunked import unit_embeddings
from calm_bench.lm.folder import build_language_model


@pytest.mark.parametrize("hidden_size", [32, 256])
def test_tokens_start_at_the_size_of_hidden_states(hidden_size: int) -> None:
    config = LanguageModel.model_validate(
        {"kind": "patch", "chunk_size": 4, "hidden_size": hidden_size, "num_layers": 1, "num_attention_heads": 2}
    )
    model = build_language_model(config, 100, None, 0)
    tokens = torch.randint(100, (8, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens_read = unit_embeddings(model.backbone, tokens)
        hidden = model.hidden_states(tokens)
    assert float(tokens_read.square().mean().sqrt()) == pytest.approx(float(hidden.square().mean().sqrt()), rel=0.1)


def test_a_decoder_reads_them_at_that_size() -> None:
    """Step by step as for whole chunks; the table itself is what the backbone's input projection reads."""
    config = LanguageModel.model_validate(
        {"kind": "patch", "chunk_size": 4, "hidden_size": 64, "num_layers": 1, "num_attention_heads": 2}
    )
    model = build_language_model(config, 100, None, 0)
    read: list[float] = []
    cell = model.head.cells[0]
    cell.register_forward_pre_hook(lambda _, inputs: read.append(float(inputs[0].square().mean().sqrt())))
    hidden, chunks = torch.randn(16, 64), torch.randint(100, (16, 4))
    with torch.no_grad():
        model.features(hidden, chunks)
        state = model.begin(hidden)
        model.advance(state, chunks[:, 0])
    # The first of a chunk reads a learned vector in place of a token.
    tokens = [*read[1:4], read[-1]]
    assert tokens == pytest.approx([1.0] * 4, rel=0.1)
