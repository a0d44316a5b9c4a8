"""Cross-entropy: exact for token models, a bound that tightens with draws for chunk models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.finite import NotFinite
from calm_bench.lm.calm import Calm
from calm_bench.lm.token import TokenModel
from evals.brier import Integers
from evals.cross_entropy import chunk_log_likelihoods, cross_entropy

VOCABULARY = 11


@dataclass
class Text:
    """Documents of ten tokens each."""

    tokens: Integers
    vocab_size: int = VOCABULARY

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, span: slice) -> Integers:
        return self.tokens[span]

    @property
    def document_ends(self) -> Integers:
        return np.arange(10, len(self.tokens) + 1, 10)

    def document_of(self, positions: Integers) -> Integers:
        return positions // 10


@pytest.fixture
def text() -> Text:
    return Text(np.random.default_rng(0).integers(0, VOCABULARY, 240))


def config(kind: str, chunk_size: int) -> LanguageModel:
    return LanguageModel.model_validate(
        {
            "kind": kind,
            "chunk_size": chunk_size,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_layers": 1,
            "num_attention_heads": 2,
            "head": {"num_blocks": 1, "noise_size": 4},
            "training": {"num_steps": 1},
        }
    )


def chunk_model(chunk_size: int = 2) -> Calm:
    torch.manual_seed(1)
    settings = AutoencoderConfig(latent_size=4, hidden_size=8, intermediate_size=8)
    return Calm(config("calm", chunk_size), Autoencoder(settings, chunk_size, VOCABULARY)).eval()


def test_the_token_model_s_is_exact(text: Text) -> None:
    torch.manual_seed(0)
    model = TokenModel(config("token", 1), VOCABULARY).eval()
    starts = [0, 40, 120]
    found = cross_entropy(model, text, starts, context_length=40, first_position=8, num_samples=1, seed=0)
    expected: list[float] = []
    for start in starts:
        tokens = torch.from_numpy(text[start : start + 40])
        with torch.no_grad():
            logits = model.lm_head(model.hidden_states(tokens[None]))[0]
        expected += [
            float(torch.nn.functional.cross_entropy(logits[place - 1], tokens[place])) for place in range(8, 40)
        ]
    assert found.value == pytest.approx(np.mean(expected), rel=1e-5)
    assert (found.kind, found.num_tokens, found.num_samples) == ("exact", 96, 0)
    assert found.num_documents == 12
    assert found.standard_error > 0


class TwoPoints(torch.nn.Module):
    """A head that draws one of two latents with known probabilities, whatever the hidden state."""

    def __init__(self, latents: Tensor, first: float) -> None:
        super().__init__()
        self.latents, self.first = latents, first

    def sample(self, hidden: Tensor, num_samples: int, generator: Generator | None = None) -> Tensor:
        chosen = torch.rand((num_samples, *hidden.shape[:-1]), generator=generator) >= self.first
        return self.latents[chosen.long()]


def two_point_model() -> tuple[Calm, Tensor, float]:
    model, first = chunk_model(), 0.3
    latents = torch.randn((2, 4), generator=torch.Generator().manual_seed(5)) * 3
    model.head = TwoPoints(latents, first)  # type: ignore[assignment]
    return model, latents, first


def test_a_chunk_model_s_comes_to_the_truth_where_that_is_known(text: Text) -> None:
    model, latents, first = two_point_model()
    tokens = torch.from_numpy(text[:40])
    with torch.no_grad():
        logits = model.autoencoder.logits(latents).log_softmax(dim=-1)  # [2, K, V]
    chunks = tokens[8:].view(-1, 2)
    each = logits[:, 0, chunks[:, 0]] + logits[:, 1, chunks[:, 1]]  # [2, n]
    truth = torch.logsumexp(each + torch.tensor([[first], [1 - first]]).log(), dim=0)
    found = chunk_log_likelihoods(model, tokens, 8, 20_000, seed=0)
    assert torch.allclose(found, truth, atol=0.03)


def test_fewer_draws_bound_it_from_above(text: Text) -> None:
    model, _, _ = two_point_model()
    # Mean over many seeds: Jensen holds in expectation.
    means = [
        np.mean([cross_entropy(model, text, [0, 40, 80, 120], 40, 8, draws, seed).value for seed in range(12)])
        for draws in (1, 4, 64)
    ]
    assert means[0] > means[1] > means[2]


def test_a_window_s_draws_do_not_depend_on_the_others(text: Text) -> None:
    model = chunk_model()

    def value(starts: Sequence[int]) -> float:
        return cross_entropy(model, text, starts, 40, 8, 4, seed=3).value

    assert value([0, 40]) == pytest.approx((value([0]) + value([40])) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("starts", "length", "first", "message"),
    [([0], 40, 7, "multiples"), ([0], 41, 8, "multiples"), ([0], 40, 0, "not 0"), ([], 40, 8, "no windows")],
)
def test_positions_must_fit(text: Text, starts: list[int], length: int, first: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cross_entropy(chunk_model(), text, starts, length, first, 2, 0)


def test_copies_of_a_document_are_one_in_its_error(text: Text) -> None:
    torch.manual_seed(0)
    model = TokenModel(config("token", 1), VOCABULARY).eval()
    documents = text.tokens.reshape(-1, 10)
    once = cross_entropy(model, text, range(0, 240, 10), 10, 1, 1, 0)
    copied = Text(documents.repeat(10, axis=0).ravel())
    ten = cross_entropy(model, copied, range(0, 2400, 10), 10, 1, 1, 0)
    assert ten.value == pytest.approx(once.value)
    assert (once.num_documents, ten.num_documents) == (24, 24)
    assert ten.standard_error == pytest.approx(once.standard_error)  # not a third of it
    with pytest.raises(ValueError, match="two documents or more"):
        cross_entropy(model, Text(documents[:1].repeat(10, axis=0).ravel()), range(0, 100, 10), 10, 1, 1, 0)


def test_a_broken_model_is_told(text: Text) -> None:
    model = chunk_model()
    with torch.no_grad():
        model.autoencoder.encoder.embedding.weight[3] = float("nan")
    with pytest.raises(NotFinite, match=r"weights \(autoencoder.encoder.embedding.weight\) are not finite"):
        cross_entropy(model, text, [0, 40], 40, 8, 2, 0)
    overflowing = TokenModel(config("token", 1), VOCABULARY).eval()
    with torch.no_grad():
        overflowing.lm_head.weight.copy_(3e38 * overflowing.lm_head.weight.sign())
    with pytest.raises(ValueError, match="likelihood that is not finite"):
        cross_entropy(overflowing, text, [0, 40], 40, 8, 2, 0)
