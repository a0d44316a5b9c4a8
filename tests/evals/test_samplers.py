"""Continuations of single contexts: alignment, empty contexts, batches, and what stands in for a missing fast path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel, Markov
from calm_bench.corpora.markov import MarkovLanguage
from calm_bench.finite import NotFinite
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from evals.adapters.token_text import TokenTextSampler
from evals.any_sampler import score
from evals.brier import Integers
from evals.markov import MarkovSampler
from evals.protocol import EvaluationError
from evals.samplers import ModelSampler, continue_windows, has_probabilities
from evals.text_brier import evaluate_text_brierlm, text_protocol_for

VOCAB_SIZE = 11
END = 10


def model(chunk_size: int) -> ChunkLanguageModel:
    """A token model for 0, else a chunk model."""
    torch.manual_seed(chunk_size)
    kind = "token" if chunk_size == 0 else "calm"
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_attention_heads": 2}
    config = LanguageModel.model_validate({"kind": kind, "chunk_size": max(chunk_size, 1), **sizes})
    made: ChunkLanguageModel
    if chunk_size == 0:
        made = TokenModel(config, VOCAB_SIZE)
    else:
        made = Calm(config, Autoencoder(AutoencoderConfig(latent_size=8), chunk_size, VOCAB_SIZE))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.add_(0.4 * torch.randn(parameter.shape))
    return made


def contexts(*lengths: int) -> list[Integers]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, VOCAB_SIZE, length) for length in lengths]


@pytest.mark.parametrize("chunk_size", [0, 1, 2, 4])
def test_a_context_gets_what_it_would_get_alone(chunk_size: int) -> None:
    sampler = ModelSampler(model(chunk_size), eos_id=END)
    texts, seeds = contexts(9, 3, 0, 16, 4, 1), [5, 6, 7, 8, 9, 10]
    together = sampler.sample(texts, 3, 6, seeds)
    assert together.shape == (6, 3, 6)
    for index, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
        np.testing.assert_array_equal(sampler.sample([text], 3, 6, [seed])[0], together[index])
    np.testing.assert_array_equal(sampler.sample(texts[::-1], 3, 6, seeds[::-1]), together[::-1])
    assert len({tuple(row) for row in together.reshape(-1, 6).tolist()}) > 6


@pytest.mark.parametrize("chunk_size", [0, 2, 4])
def test_small_batches_change_nothing(chunk_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, texts = ModelSampler(model(chunk_size), eos_id=END), contexts(8, 5, 12, 4)
    expected = sampler.sample(texts, 2, 5, [1, 2, 3, 4])
    monkeypatch.setattr("evals.samplers.TOKENS_AT_ONCE", 1)
    np.testing.assert_array_equal(sampler.sample(texts, 2, 5, [1, 2, 3, 4]), expected)


def test_chunks_end_where_the_context_ends() -> None:
    sampler = ModelSampler(model(4), eos_id=END)
    long, short = contexts(11, 3)
    whole = sampler.sample([long[3:]], 2, 5, [0])
    np.testing.assert_array_equal(sampler.sample([long], 2, 5, [0]), whole)
    filled = np.concatenate([[END], short])
    np.testing.assert_array_equal(sampler.sample([short], 2, 5, [0]), sampler.sample([filled], 2, 5, [0]))
    empty = np.array([], dtype=np.int64)
    np.testing.assert_array_equal(sampler.sample([empty], 2, 5, [0]), sampler.sample([np.full(4, END)], 2, 5, [0]))


@pytest.mark.parametrize("chunk_size", [0, 2])
def test_sampling_a_context_and_continuing_a_window_have_the_same_distribution(chunk_size: int) -> None:
    sampler, (text,) = ModelSampler(model(chunk_size)), contexts(6)
    one = sampler.sample([text], 3000, 3, [0])[0]
    other = sampler.continue_windows(text[None], [6], 3000, 3, [1])[0, 0]
    for step in range(3):
        found = np.stack([np.bincount(drawn[:, step], minlength=VOCAB_SIZE) for drawn in (one, other)]) / 3000
        assert np.abs(found[0] - found[1]).max() < 4 * (0.5 / 3000) ** 0.5


@pytest.mark.parametrize(
    ("eos_id", "text", "seeds", "message"),
    [
        (None, [1, 2], [0], "a context of 2 tokens is shorter than the model's chunk of 4: give ModelSampler"),
        (None, [], [0], "a context of 0 tokens"),
        (END, [1, 11, 2, 3], [0], "not in the vocabulary of 11"),
        (END, [1, -1, 2, 3], [0], "not in the vocabulary of 11"),
        (END, [1, 2, 3, 4], [0, 1], "1 contexts need as many seeds, found 2"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    eos_id: int | None, text: list[int], seeds: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSampler(model(4), eos_id).sample([np.array(text, dtype=np.int64)], 2, 4, seeds)


@pytest.mark.parametrize(
    "part", ["backbone.norm.weight", "head.final.out_proj.weight", "autoencoder.decoder.norm.weight"]
)
def test_nan_anywhere_in_a_chunk_model_is_an_error(part: str) -> None:
    broken = model(2)
    with torch.no_grad():
        broken.get_parameter(part).view(-1)[0] = torch.nan
    sampler, texts = ModelSampler(broken), contexts(6, 6)
    with pytest.raises(NotFinite, match="not finite"):
        sampler.sample(texts, 2, 4, [0, 1])
    with pytest.raises(NotFinite, match="not finite"):
        sampler.continue_windows(np.stack(texts), [2, 4], 2, 2, [0, 1])


class OnlySample:
    """Nothing but the small protocol."""

    vocab_size, chunk_size = 257, 1

    def __init__(self, inner: MarkovSampler) -> None:
        self._inner = inner

    def sample(self, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        return self._inner.sample(contexts, num_samples, horizon, seeds)


def test_a_sampler_without_windows_reads_every_prefix() -> None:
    language = MarkovLanguage(Markov(order=2, alphabet_size=3))
    known, plain = MarkovSampler(language), OnlySample(MarkovSampler(language))
    windows = np.stack([language.sample_codes(document, 12) for document in range(3)]) + ord("a")
    found = continue_windows(plain, windows, [1, 5, 9], 2000, 2, [1, 2, 3])
    assert found.shape == (3, 3, 2000, 2)
    assert has_probabilities(known)
    assert not has_probabilities(plain)
    for w, p in np.ndindex(3, 3):
        position = [1, 5, 9][p]
        context = windows[w, max(0, position - 2) : position] - ord("a")
        share = np.bincount(found[w, p, :, 0] - ord("a"), minlength=3) / 2000
        np.testing.assert_allclose(share, language.next_probabilities(context), atol=0.05)
    alone = continue_windows(plain, windows[1:2], [5], 2000, 2, [2])
    np.testing.assert_array_equal(alone[0, 0], found[1, 1])


def test_a_known_language_begins_a_document_after_an_empty_context() -> None:
    language = MarkovLanguage(Markov(order=2, alphabet_size=3))
    drawn = MarkovSampler(language).sample([np.array([], dtype=np.int64), np.array([97, 98, 99])], 4000, 1, [0, 1])
    share = np.bincount(drawn[0, :, 0] - ord("a"), minlength=3) / 4000
    np.testing.assert_allclose(share, language.stationary.sum(axis=0), atol=0.04)


class Draws:
    """A sampler of anybody's, which gives what it is told to."""

    vocab_size, chunk_size = 257, 1

    def __init__(self, give: Callable[[int, int, int], Any]) -> None:
        self._give = give

    def sample(self, contexts: Sequence[Any], num_samples: int, horizon: int, seeds: Sequence[int]) -> Any:
        return self._give(len(contexts), num_samples, horizon)


TEXTS = [f"text {number} of the same length " * 10 for number in range(12)]


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda c, s, h: np.full((s, c, h), 97), r"Draws\.sample of \d+ contexts, .* gives \(8, \d+, 4\) instead of"),
        (lambda c, s, h: np.full((c, s), 97), "instead of"),
        (lambda c, s, h: np.full((c, s, h), 97.6), "numbers of the kind float64, and token ids are whole numbers"),
        (lambda c, s, h: np.full((c, s, h), np.nan), "numbers of the kind float64"),
        (lambda c, s, h: np.full((c, s, h), None), "kind object"),
        (
            lambda c, s, h: np.full((c, s, h), -1),
            r"sample gives tokens from -1 to -1, .* token ids are 0 to 256",
        ),
        (lambda c, s, h: np.full((c, s, h), 257), "tokens from 257 to 257, outside its vocabulary of 257"),
    ],
)
def test_draws_that_are_none(give: Callable[[int, int, int], Any], message: str) -> None:
    """Of another shape they would be those of other contexts, and fractions equal no token."""
    with pytest.raises(EvaluationError, match=message):
        score(Draws(give), TEXTS, context_length=64, max_windows=4)
    if not message.startswith((r"Draws\.sample of", "instead")):
        # A negative id would be the text of another token.
        with pytest.raises(EvaluationError, match=message):
            evaluate_text_brierlm(
                TokenTextSampler(Draws(give), ByteTokenizer()), TEXTS, text_protocol_for(TEXTS, unit="bytes")
            )


class WindowDraws(Draws):
    """One that continues windows, too."""

    def continue_windows(
        self, windows: Any, positions: Sequence[int], num_samples: int, horizon: int, seeds: Any, targets: Any = None
    ) -> Any:
        return self._give(len(windows) * len(positions), num_samples, horizon).reshape(
            len(windows), len(positions), num_samples, -1
        )


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda c, s, h: np.full((c, s, h - 1), 97), r"WindowDraws\.continue_windows of 4 windows at .* instead of"),
        (lambda c, s, h: np.full((c, s, h), 97.0), "numbers of the kind float64"),
        (lambda c, s, h: np.full((c, s, h), -2), "tokens from -2 to -2, outside its vocabulary of 257"),
        (lambda c, s, h: np.full((c, s, h), 300), "tokens from 300 to 300"),
    ],
)
def test_draws_of_windows_that_are_none(give: Callable[[int, int, int], Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        score(WindowDraws(give), TEXTS, context_length=64, max_windows=4)
    # What was not drawn, since it could not matter.
    assert score(WindowDraws(lambda c, s, h: np.full((c, s, h), -1)), TEXTS, context_length=64).brierlm == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"num_samples": 1}, r"num_samples: .* greater than or equal to 2, found 1"),
        (
            {"context_length": 20},
            "first_position 32 leaves no 4-gram.* lower it to 16 or less, or",
        ),
        ({"context_length": 0}, "context_length: .* greater than 0, found 0"),
        ({"position_stride": -8}, "position_stride: .* greater than 0, found -8"),
        ({"max_windows": 0}, "max_windows: .* greater than 0, found 0"),
        ({"max_windows": 2}, "the documents have .* raise max_windows to 3 or more"),
        ({"context_length": 2000}, "lower context_length or give more documents"),
        ({"seed": "two"}, "seed: .* found 'two'"),
    ],
)
def test_arguments_out_of_range_are_named_as_arguments(arguments: dict[str, Any], told: str) -> None:
    """Nothing here is a setting of a study."""
    sampler = Draws(lambda c, s, h: np.full((c, s, h), 101))
    with pytest.raises(EvaluationError, match=told) as refused:
        score(sampler, TEXTS, **arguments)
    assert "evaluation." not in str(refused.value)
    assert "corpus." not in str(refused.value)


def test_chunks_that_positions_do_not_fit_are_told_by_argument() -> None:
    sampler = Draws(lambda c, s, h: np.full((c, s, h), 101))
    sampler.chunk_size = 4
    with pytest.raises(EvaluationError, match=r"^position_stride 6 is not a multiple of the model's chunk size 4"):
        score(sampler, TEXTS, context_length=64, position_stride=6)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"unit": "bytes", "num_samples": 1}, "num_samples: .* greater than or equal to 2"),
        ({"unit": "letters"}, "unit: .*'words'"),
        ({"unit": "bytes", "contextbytes": 8}, "contextbytes: unknown key; did you mean 'context_bytes'"),
        (
            {"unit": "bytes", "first_position": 400},
            "first_position 400 asks for more left context",
        ),
    ],
)
def test_settings_of_text_are_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(EvaluationError, match=told):
        text_protocol_for(TEXTS, **settings)


def test_draws_in_lists_are_draws() -> None:
    arrays, lists = (
        score(Draws(give), TEXTS, context_length=64, max_windows=4)
        for give in (lambda c, s, h: np.full((c, s, h), 101), lambda c, s, h: [[[101] * h] * s] * c)
    )
    assert arrays.brier == lists.brier


def test_documents_are_a_list_of_texts() -> None:
    sampler = Draws(lambda c, s, h: np.full((c, s, h), 101))
    for single in (TEXTS[0], TEXTS[0].encode()):
        with pytest.raises(EvaluationError, match="whose letters would be documents"):
            score(sampler, single)  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="document 1 is of the kind int"):
        score(sampler, [TEXTS[0], 5])  # type: ignore[list-item]
    listed, given = (score(sampler, texts, context_length=64) for texts in (TEXTS, (text for text in TEXTS)))  # type: ignore[arg-type]
    assert listed.protocol_hash == given.protocol_hash


def test_copies_of_a_text_are_one_in_errors() -> None:
    """However often a text is given, it says as much as once."""
    known = MarkovLanguage(Markov(order=1, alphabet_size=4, concentration=0.3, seed=0))
    texts = [known.sample_codes(number, 90) + ord("a") for number in range(14)]
    once, ten = (
        score(MarkovSampler(known), given, context_length=91, first_position=8)
        for given in ([[*text, 256] for text in texts], [[*text, 256] for text in texts for _ in range(10)])
    )
    assert (once.num_documents, ten.num_documents) == (14, 14)
    assert ten.brierlm_se == pytest.approx(once.brierlm_se, rel=0.3)  # not a third of it
