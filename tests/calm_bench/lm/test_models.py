"""What the two language models promise, whatever their weights."""

from __future__ import annotations

import pytest
import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.finite import NotFinite
from calm_bench.heads.noise import OneSource
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.lm.exact import select_tokens
from calm_bench.lm.folder import build_language_model

VOCAB_SIZE = 23


def model(chunk_size: int | None) -> ChunkLanguageModel:
    """CALM of the given K, or the token model."""
    config = LanguageModel(
        kind="token" if chunk_size is None else "calm",
        chunk_size=chunk_size or 1,
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_attention_heads=2,
    )
    autoencoder = None
    if chunk_size is not None:
        sizes = AutoencoderConfig(latent_size=4, hidden_size=8, intermediate_size=12)
        autoencoder = Autoencoder(sizes, chunk_size, VOCAB_SIZE)
    return build_language_model(config, VOCAB_SIZE, autoencoder, seed=3).eval()


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 4])
def test_hidden_states_see_no_later_chunk(chunk_size: int | None) -> None:
    lm = model(chunk_size)
    k = lm.chunk_size
    tokens = torch.randint(VOCAB_SIZE, (2, 6 * k))
    changed = tokens.clone()
    changed[:, 4 * k :] = (changed[:, 4 * k :] + 1) % VOCAB_SIZE
    before, after = lm.hidden_states(tokens), lm.hidden_states(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_token_draws_follow_the_softmax() -> None:
    lm = model(None)
    assert isinstance(lm, TokenModel)
    with torch.no_grad():
        lm.lm_head.weight.mul_(8)
    hidden = torch.randn(3, 16)
    drawn = lm.draw(hidden, 40_000, torch.Generator().manual_seed(0)).squeeze(-1)
    frequencies = torch.stack([torch.bincount(column, minlength=VOCAB_SIZE) for column in drawn.T]) / len(drawn)
    torch.testing.assert_close(frequencies, lm.probabilities(hidden).detach(), atol=0.01, rtol=0)


def test_rows_are_drawn_alike_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = model(None)
    hidden = torch.randn(5, 16)
    whole = lm.draw(hidden, 4, torch.Generator().manual_seed(0))
    monkeypatch.setattr("calm_bench.blockwise.MAX_LOGITS", 2 * VOCAB_SIZE)
    assert torch.equal(whole, lm.draw(hidden, 4, torch.Generator().manual_seed(0)))


def test_the_autoencoder_stays_in_evaluation_mode_and_frozen() -> None:
    lm = model(2)
    assert isinstance(lm, Calm)
    lm.train()
    assert lm.training
    assert lm.head.training
    assert not lm.autoencoder.training
    assert not any(name.startswith("autoencoder") for name, _ in lm.trainable_parameters())


def test_chunk_sizes_must_agree() -> None:
    sizes = AutoencoderConfig(latent_size=4, hidden_size=8, intermediate_size=12)
    with pytest.raises(ValueError, match="K = 4, its autoencoder K = 2"):
        build_language_model(LanguageModel(chunk_size=4), VOCAB_SIZE, Autoencoder(sizes, 2, VOCAB_SIZE), seed=0)


def test_tokens_that_fill_no_whole_chunk_are_refused() -> None:
    with pytest.raises(ValueError, match="7 tokens are not a whole number of chunks of 2"):
        model(2).embed(torch.zeros(1, 7, dtype=torch.long))


def test_numbers_select_tokens_by_the_cumulative_distribution() -> None:
    logits = torch.tensor([[0.1, 0.0, 0.4, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]).log()
    uniform = torch.tensor(
        [[0.0, 0.0999, 0.1001, 0.4999, 0.5001, 1 - 2**-24], [0.0, 0.5, 0.9, 0.99, 0.999, 1 - 2**-24]]
    )
    assert select_tokens(logits, uniform).tolist() == [[0, 0, 2, 2, 3, 3], [0] * 6]
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(NotFinite, match="logits are not finite"):
            select_tokens(torch.tensor([[0.0, wrong]]), uniform[:1])


def test_samples_that_share_a_state_are_drawn_as_if_it_were_theirs_alone() -> None:
    torch.manual_seed(0)
    config = LanguageModel(kind="token", hidden_size=8, intermediate_size=12, num_layers=1, num_attention_heads=2)
    model = TokenModel(config, 40)
    hidden, state = 5 * torch.randn(4, 8), torch.tensor([2, 0, 0, 2, 3, 0])  # nobody has state 1

    class OneEach(OneSource):
        def uniform(self, width: int) -> torch.Tensor:
            return super().uniform(width)[0]

    found = model.draw_each(hidden, state, OneEach(hidden[state], 1, torch.Generator().manual_seed(1)))
    expected = model.draw_from(hidden[state], OneSource(hidden[state], 1, torch.Generator().manual_seed(1)))[0]
    assert torch.equal(found, expected)
    assert len(found.unique()) > 1
