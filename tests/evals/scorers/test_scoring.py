"""Whole continuations: equal scores in any order and batch, exact likelihoods of token models, and bad input."""

from __future__ import annotations

import pytest
import torch

from calm_bench import blockwise
from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel as LanguageModelConfig
from calm_bench.finite import NotFinite
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.registry import UnknownName
from evals.scorers import SCORERS, scoring
from evals.scorers.scoring import Text, score_texts

VOCAB_SIZE = 7


def model_of(chunk_size: int) -> ChunkLanguageModel:
    """A token model (chunk_size 0) or a chunk model, its weights large enough to say something."""
    torch.manual_seed(chunk_size)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "chunk_size": max(1, chunk_size)}
    config = LanguageModelConfig.model_validate({**sizes, "kind": "calm" if chunk_size else "token"})
    model: ChunkLanguageModel
    if chunk_size == 0:
        model = TokenModel(config, VOCAB_SIZE)
    else:
        settings = AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24)
        model = Calm(config, Autoencoder(settings, chunk_size, VOCAB_SIZE))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


TEXTS = [
    Text((0, 1, 2, 3, 4, 5, 6, 0, 1), 5, "a"),
    Text((3, 3, 3, 3), 4, "nothing to score"),
    Text((6, 5, 4, 3, 2, 1), 4, "b"),
    Text((6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0), 9, "b"),
    Text((1, 2, 3, 4, 5), 4, "c"),
]


@pytest.mark.parametrize("scorer", SCORERS.names())
@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_neither_order_nor_batch_matters(scorer: str, chunk_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(chunk_size)
    together = score_texts(model, TEXTS, SCORERS.get(scorer), 16)
    reverse = score_texts(model, TEXTS[::-1], SCORERS.get(scorer), 16)[::-1]
    alone = [score_texts(model, [text], SCORERS.get(scorer), 16)[0] for text in TEXTS]
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", 1)
    for text, first, *others in zip(TEXTS, together, reverse, alone, strict=True):
        expected = -(-len(text.tokens) // chunk_size) - text.start // chunk_size
        assert first.num_chunks == (expected if text.start < len(text.tokens) else 0)
        for other in others:
            assert other.value == pytest.approx(first.value, rel=1e-4, abs=1e-4)
            assert other.standard_error == pytest.approx(first.standard_error, rel=1e-3, abs=1e-4)
    assert together[1].value == 0
    assert together[1].is_greedy
    assert all(score.standard_error > 0 for score in [together[0], *together[2:]])


def test_token_models_are_exact() -> None:
    model = model_of(0)
    assert isinstance(model, TokenModel)
    for text, score in zip(TEXTS, score_texts(model, TEXTS, None, 0), strict=True):
        ids = torch.tensor([text.tokens])
        with torch.no_grad():
            logs = model.lm_head(model.hidden_states(ids)).log_softmax(-1)[0, :-1]
        asked = ids[0, text.start :]
        chosen = logs[text.start - 1 :].gather(1, asked[:, None]).sum()
        assert score.value == pytest.approx(float(chosen), abs=1e-5)
        assert score.standard_error == 0
        assert score.num_samples == 0
        assert score.is_greedy == bool((logs[text.start - 1 :].argmax(-1) == asked).all())


def test_choices_after_one_context_share_their_random_numbers() -> None:
    """Equal first chunks get equal draws, whatever the choices say later."""
    model = model_of(2)
    choices = [Text((0, 1, 2, 3, *rest), 4, "context") for rest in ((5, 5), (5, 5, 1, 0))]
    first, longer = score_texts(model, choices, SCORERS.get("latent_energy"), 8)
    again = score_texts(model, [Text((0, 1, 2, 3, 5, 5), 4, "another")], SCORERS.get("latent_energy"), 8)[0]
    only_second = score_texts(model, [choices[1]], SCORERS.get("latent_energy"), 8)[0]
    assert only_second.value == pytest.approx(longer.value, rel=1e-5)
    assert first.value != again.value


def test_blocks_of_the_vocabulary_change_nothing() -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 5), torch.randn(31, 5), torch.randint(31, (9,))
    logs = (hidden @ weight.T).log_softmax(-1)
    for size in (1, 62, 10_000):
        found, likeliest = blockwise.log_probabilities_and_argmax(hidden, weight, targets, max_logits=size)
        torch.testing.assert_close(found, logs.gather(1, targets[:, None])[:, 0])
        torch.testing.assert_close(likeliest, logs.argmax(-1))


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="no likelihood"):
        score_texts(model_of(2), TEXTS, None, 16)
    with pytest.raises(ValueError, match="at least 2 draws"):
        score_texts(model_of(2), TEXTS, SCORERS.get("decoder"), 1)
    with pytest.raises(ValueError, match="needs 4 tokens before it, found 3"):
        score_texts(model_of(4), [Text((0, 1, 2, 3), 3, "")], SCORERS.get("decoder"), 4)
    with pytest.raises(UnknownName, match="did you mean 'latent_energy'"):
        SCORERS.get("latent_energies")


@pytest.mark.parametrize("scorer", ["decoder", "prefix_match", "latent_density", "latent_energy"])
@pytest.mark.parametrize("part", ["backbone.layers.0.self_attn.q_proj.weight", "autoencoder.decoder.norm.weight"])
def test_weights_that_are_not_finite_are_named(part: str, scorer: str) -> None:
    model = model_of(2)
    with torch.no_grad():
        model.get_parameter(part).fill_(torch.nan)
    with pytest.raises(NotFinite, match=rf"the model's weights \({part}\) are not finite"):
        score_texts(model, TEXTS, SCORERS.get(scorer), 4)


@pytest.mark.parametrize("chunk_size", [0, 2])
def test_nan_is_an_error(chunk_size: int) -> None:
    model = model_of(chunk_size)
    with torch.no_grad():
        model.backbone.norm.weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match="not finite"):
        score_texts(model, TEXTS, SCORERS.get("decoder") if chunk_size else None, 4)
