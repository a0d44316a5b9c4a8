"""All estimators have the same expectation, the exact score of a known language; they differ in their variance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import Evaluation, LanguageModel, Markov
from calm_bench.corpora.markov import MarkovLanguage
from calm_bench.head_config import EnergyHead
from calm_bench.heads.energy import EnergyHead as EnergyHeadModule
from calm_bench.lm import Calm, TokenModel
from calm_bench.sampling.traces import trace_continuations
from evals.brier import Floats, Integers
from evals.estimators import Estimator, estimator_for, samples_used, score_windows, value_of_a_match
from evals.markov import MarkovSampler
from evals.protocol import EvaluationError, protocol_for
from evals.samplers import ModelSampler, Sampler, Traces

LENGTHS = (1, 2, 3, 4)
ALL: list[Estimator] = ["exact", "all-pairs", "two-sample", "teacher-forced", "two-prefix"]


class InChunks(MarkovSampler):
    """The same language as a model that only says what it draws, K letters at a time."""

    has_probabilities = False

    def __init__(self, language: MarkovLanguage, chunk_size: int) -> None:
        super().__init__(language)
        self.chunk_size = chunk_size


def language(order: int = 1, alphabet_size: int = 4, concentration: float = 0.5) -> MarkovLanguage:
    return MarkovLanguage(Markov(order=order, alphabet_size=alphabet_size, concentration=concentration, seed=3))


def exact_scores(model: MarkovLanguage, windows: Integers, positions: Sequence[int]) -> Floats:
    """``[W, P, N]``: ``2 P(y) - sum_x P(x)^2`` at every position, from the probabilities of all n-grams."""
    size, order = len(model.letters), model.order
    grams = np.array(list(itertools.product(range(size), repeat=4)))
    out = np.empty((len(windows), len(positions), 4))
    for (w, window), (p, position) in itertools.product(enumerate(windows - ord("a")), enumerate(positions)):
        texts = np.concatenate([np.tile(window[position - order : position], (len(grams), 1)), grams], axis=1)
        chances = np.stack(
            [model.next_probabilities(texts[:, h : h + order])[np.arange(len(grams)), grams[:, h]] for h in range(4)]
        )
        for n in LENGTHS:
            each = chances[:n].prod(axis=0)[:: size ** (4 - n)]
            code = int("".join(map(str, window[position : position + n])), size)
            out[w, p, n - 1] = 2 * each[code] - (each**2).sum()
    return out


def windows_of(truth: MarkovLanguage, count: int, length: int = 16) -> Integers:
    return np.stack([truth.sample_codes(document, length) for document in range(count)]) + ord("a")


def repeated(
    sampler: Sampler, windows: Integers, positions: Sequence[int], estimator: Estimator, num_samples: int, times: int
) -> Floats:
    """``[times, W, P, N]``: the same text scored again and again."""
    copies, seeds = np.tile(windows, (times, 1)), range(times * len(windows))
    scores = score_windows(sampler, copies, positions, num_samples, LENGTHS, seeds, estimator).scores
    return scores.reshape(times, len(windows), len(positions), len(LENGTHS))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("estimator", ALL)
def test_expectation_is_the_exact_score(estimator: Estimator, order: int) -> None:
    truth = language(order)
    windows, positions, times = windows_of(truth, 4), list(range(2, 10)), 400
    found = repeated(MarkovSampler(truth), windows, positions, estimator, 4, times)
    exact = exact_scores(truth, windows, positions)
    # The text is fixed, so only the sampling varies; its mean over all positions and repetitions.
    error = (found - exact).mean(axis=(1, 2))
    standard_error = np.maximum(error.std(axis=0, ddof=1) / times**0.5, 1e-12)
    assert (np.abs(error.mean(axis=0)) < 3.5 * standard_error).all()
    if estimator in ("exact", "two-prefix"):
        np.testing.assert_allclose(found[..., 0], np.broadcast_to(exact[..., 0], found.shape[:-1]), atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("estimator", ["all-pairs", "teacher-forced"])
def test_ngrams_over_several_chunks(estimator: Estimator, chunk_size: int) -> None:
    truth = language()
    windows, times = windows_of(truth, 3, length=36), 300
    positions = list(range(chunk_size, 36 - 2 * 4, chunk_size))
    found = repeated(InChunks(truth, chunk_size), windows, positions, estimator, 4, times)
    error = (found - exact_scores(truth, windows, positions)).mean(axis=(1, 2))
    assert (np.abs(error.mean(axis=0)) < 3.5 * error.std(axis=0, ddof=1) / times**0.5).all()


def test_what_is_known_exactly_varies_less() -> None:
    truth = language(alphabet_size=8)
    windows, positions = windows_of(truth, 10), [2, 5, 8, 11]
    spread = {
        name: repeated(MarkovSampler(truth), windows, positions, name, 8, 60).mean(axis=(1, 2)).std(axis=0)
        for name in ALL
    }
    assert (spread["all-pairs"] < spread["two-sample"]).all()
    assert (spread["two-prefix"] < 0.7 * spread["two-sample"]).all()
    assert spread["exact"][0] < 1e-12
    assert (spread["exact"][1:] < 0.5 * spread["all-pairs"][1:]).all()


@pytest.mark.parametrize(("estimator", "given", "others"), [("exact", 2, [2]), ("all-pairs", 5, [5, 3])])
def test_the_noise_of_sampling_is_estimated_without_bias(estimator: Estimator, given: int, others: list[int]) -> None:
    """From ``given`` samples, the covariance that this and another number of samples really have."""
    truth = language()
    windows, positions, times = windows_of(truth, 6), [2, 6, 10], 1500
    sampler = MarkovSampler(truth)
    copies, seeds = np.tile(windows, (times // 5, 1)), range(10**6, 10**6 + times // 5 * len(windows))
    noise = score_windows(sampler, copies, positions, given, LENGTHS, seeds, estimator).noise
    assert noise is not None
    for number in others:
        found = noise.covariance(number) / (times // 5)
        true = np.cov(repeated(sampler, windows, positions, estimator, number, times).sum(axis=(1, 2)).T)
        scale = np.sqrt(np.diag(true))
        if estimator == "exact":
            assert scale[0] < 1e-12
            found, true, scale = found[1:, 1:], true[1:, 1:], scale[1:]
        np.testing.assert_allclose(found / np.outer(scale, scale), true / np.outer(scale, scale), atol=0.13)


def test_two_samples_do_not_tell_their_noise() -> None:
    truth = language()
    for name in ("two-sample", "teacher-forced", "two-prefix"):
        assert (
            score_windows(MarkovSampler(truth), windows_of(truth, 3), [4, 5], 8, LENGTHS, [1, 2, 3], name).noise is None
        )


@pytest.mark.parametrize(
    ("protocol", "chunk_size", "probabilities", "expected"),
    [
        ("matched", 1, True, "exact"),
        ("matched", 1, False, "all-pairs"),
        ("matched", 4, False, "all-pairs"),
        ("paper", 1, True, "two-prefix"),
        ("paper", 1, False, "teacher-forced"),
        ("paper", 2, False, "teacher-forced"),
        ("paper", 4, False, "two-sample"),
        ("paper", 8, False, "two-sample"),
    ],
)
def test_defaults(protocol: str, chunk_size: int, probabilities: bool, expected: str) -> None:
    sampler: MarkovSampler = InChunks(language(), chunk_size)
    if probabilities:
        sampler = MarkovSampler(language())
    rules = protocol_for(
        Evaluation.model_validate({"protocol": protocol}), "c", "t", None if probabilities else chunk_size
    )
    assert estimator_for(sampler, rules) == expected


def test_number_of_samples_and_worth_of_a_match() -> None:
    assert [samples_used(name, 8) for name in ALL] == [2, 8, 2, 2, 2]
    assert [value_of_a_match(name, 8) for name in ALL] == [0.0, 0.25, 1.0, 1.0, 1.0]


def test_what_a_model_cannot_give_is_refused() -> None:
    sampler, rules = InChunks(language(), 2), protocol_for(Evaluation(), "c", "t")
    for name in ("exact", "two-prefix"):
        with pytest.raises(EvaluationError, match=f"'{name}' needs a model's probabilities"):
            estimator_for(sampler, rules, name)
        with pytest.raises(EvaluationError, match="needs a model's probabilities"):
            score_windows(sampler, windows_of(language(), 2), [2], 4, LENGTHS, [1, 2], name)
    with pytest.raises(EvaluationError, match="a position at every chunk of 2 tokens"):
        estimator_for(sampler, rules, "teacher-forced")
    with pytest.raises(EvaluationError, match=r"unknown estimator 'best'; there are exact, all-pairs"):
        estimator_for(sampler, rules, "best")  # type: ignore[arg-type]


def test_chunk_models_have_no_probabilities() -> None:
    config = LanguageModel(chunk_size=2, hidden_size=16, intermediate_size=24, num_layers=1, head=EnergyHead())
    sampler = ModelSampler(Calm(config, Autoencoder(AutoencoderConfig(latent_size=8), 2, 11)))
    assert not sampler.has_probabilities
    with pytest.raises(ValueError, match="no probabilities"):
        sampler.trace_windows(np.zeros((1, 8), dtype=np.int64), [2], 2, 4, [0], squared=True)


class Babbler(MarkovSampler):
    """A model that draws what is not in its vocabulary."""

    has_probabilities = False

    def continue_windows(self, *arguments: object, **settings: object) -> Integers:
        return super().continue_windows(*arguments, **settings) + 200  # type: ignore[arg-type]


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    truth = language()
    with pytest.raises(EvaluationError, match="outside its vocabulary of 257"):
        score_windows(Babbler(truth), windows_of(truth, 2), [4], 2, LENGTHS, [1, 2], "all-pairs")


def test_given_up_samples_count_as_neither_match_nor_collision() -> None:
    """-1 after two samples have parted from each other and from the target."""

    class Stopping(MarkovSampler):
        def continue_windows(self, *arguments: object, **settings: object) -> Integers:
            return np.array([[[[97, 98, -1, -1], [98, 99, -1, -1], [98, 97, -1, -1], [99, -1, -1, -1]]]])

    windows = np.array([[97, 97, 97, 97, 97]])
    scores = score_windows(Stopping(language()), windows, [1], 4, LENGTHS, [0], "all-pairs").scores[0, 0]
    np.testing.assert_allclose(scores[0], 2 / 4 - 1 / 6)
    assert scores[1:].tolist() == [0, 0, 0]


def test_a_failed_trace_is_no_score() -> None:
    class Broken(MarkovSampler):
        def trace_windows(self, *arguments: object, **settings: object) -> object:  # type: ignore[override]
            traces = super().trace_windows(*arguments, **settings)  # type: ignore[arg-type]
            return traces._replace(collision=traces.collision * np.nan)

    truth = language()
    with pytest.raises(ArithmeticError, match="not finite"):
        score_windows(Broken(truth), windows_of(truth, 2), [4], 2, LENGTHS, [1, 2], "exact")


class Whole(ModelSampler):
    """Continues every sample to its end, whether it can still change a score or not."""

    drawn = 0
    """Tokens."""

    def continue_windows(self, *arguments: Any) -> Integers:
        *known, _ = arguments
        samples = super().continue_windows(*known)
        self.drawn += int((samples >= 0).sum())
        return samples

    def trace_windows(self, windows: Integers, positions: Sequence[int], *rest: Any) -> Traces:
        num_samples, horizon, seeds, squared = rest
        assert isinstance(self._model, TokenModel)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        traced = trace_continuations(
            self._model, torch.from_numpy(windows), positions, num_samples, horizon, generators, squared
        )
        target, tokens, collision = (part.numpy() for part in traced)
        self.drawn += int((tokens >= 0).sum())
        return Traces(target.astype(np.float64), tokens, collision.astype(np.float64))


class Stopped(ModelSampler):
    """As it is, counting."""

    drawn = 0

    def continue_windows(self, *arguments: Any) -> Integers:
        samples = super().continue_windows(*arguments)
        self.drawn += int((samples >= 0).sum())
        return samples

    def trace_windows(self, *arguments: Any) -> Traces:
        traces = super().trace_windows(*arguments)
        self.drawn += int((traces.tokens >= 0).sum())
        return traces


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("chunk_size", [None, 1, 2, 4])
def test_stopping_samples_that_can_change_nothing_keeps_the_scores(chunk_size: int | None, sharpness: float) -> None:
    """At the estimators of the paper's protocol; ``sharpness`` goes from samples that part at once to equal ones.

    To the bit where samples are counted. Where probabilities are, some processors round a product of few rows otherwise
    than one of more.
    """
    model = sharp_model(chunk_size, sharpness)
    windows = np.random.default_rng(0).integers(0, 5, (3, 24))
    protocol = protocol_for(Evaluation(protocol="paper", context_length=24), "c", "t", chunk_size)
    scores, drawn = [], []
    for sampler in (Whole(model), Stopped(model)):
        estimator = estimator_for(sampler, protocol)
        found = score_windows(sampler, windows, protocol.positions, 2, LENGTHS, [1, 2, 3], estimator)
        scores.append(found.scores)
        drawn.append(sampler.drawn)
    whole, stopped = scores
    np.testing.assert_allclose(stopped, whole, rtol=0, atol=1e-6 if chunk_size is None else 0)
    assert np.abs(scores[0]).max() > 0
    assert drawn[1] < drawn[0] or sharpness == 30.0


def sharp_model(chunk_size: int | None, sharpness: float) -> Calm | TokenModel:
    """On five tokens; two samples agree the more often the larger ``sharpness``."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_attention_heads": 2}
    kind = "token" if chunk_size is None else "calm"
    config = LanguageModel.model_validate({"kind": kind, "chunk_size": chunk_size or 1, **sizes})
    with torch.no_grad():
        if chunk_size is None:
            tokens = TokenModel(config, 5)
            tokens.lm_head.weight.normal_(std=sharpness)
            return tokens.eval()
        model = Calm(config, Autoencoder(AutoencoderConfig(latent_size=8, hidden_size=16), chunk_size, 5))
        assert isinstance(model.head, EnergyHeadModule)
        model.head.final.out_proj.weight.normal_()
        model.head.noise_embedding.weight.mul_(0.0 if sharpness == 30.0 else 10 if sharpness == 0.0 else 0.3)
        return model.eval()
