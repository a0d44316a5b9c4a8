"""BrierLM end to end: known languages, honest intervals, properness, batches, real models and refusals."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from calm_bench.config import Corpus, LanguageModel, Markov, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.corpora.markov import MarkovLanguage
from calm_bench.lm import TokenModel
from calm_bench.tokens import TokenStream, write_tokens
from evals.brier import brierlm
from evals.evaluate import Estimator, EvaluationError, MarkovSampler, ModelSampler, TokenSource, evaluate_brierlm
from evals.protocol import Protocol
from evals.stats import paired_difference
from evals.sums import compare
from tests.evals.markov_texts import (
    LETTERS,
    Documents,
    OnlySamples,
    blurred,
    expected_components,
    fresh_text,
    language,
    protocol,
    text_of,
)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_true_model_scores_its_exact_value(order: int) -> None:
    truth = language(order=order)
    result = evaluate_brierlm(MarkovSampler(truth), text_of(truth, 1500), protocol(num_samples=8))
    exact = np.array([truth.exact_brier(n) for n in (1, 2, 3, 4)])
    assert np.abs((np.array(result.brier) - exact) / result.brier_se).max() < 3.5
    assert result.interval[0] < brierlm(exact) < result.interval[1]
    assert max(result.brier_se) < 0.1 * exact[0]
    assert result.brierlm_se_delta == pytest.approx(result.brierlm_se, rel=0.1)
    assert (result.num_positions, result.num_documents, result.num_windows) == (1500 * 5, 1500, 1500)
    assert result.error_unit == "document"


def test_on_files_of_the_real_corpus(tmp_path: Path) -> None:
    """The same through corpus and tokens on disk, where splits are drawn and documents are shuffled into them."""
    settings = Markov(alphabet_size=5, concentration=0.3, num_documents=600, document_length=LETTERS)
    corpus = Corpus(source="markov", markov=settings, test_fraction=0.8)
    write_corpus(corpus, tmp_path / "corpus")
    write_tokens(Tokens(), tmp_path / "corpus", tmp_path / "tokens")
    stream = TokenStream.open(tmp_path / "tokens", "test")
    truth = MarkovLanguage(settings)
    result = evaluate_brierlm(MarkovSampler(truth), stream, protocol())
    exact = np.array([truth.exact_brier(n) for n in (1, 2, 3, 4)])
    rows = stream[: len(stream)].reshape(-1, LETTERS + 1)
    # By chance some documents of so small a language are equal.
    assert result.num_documents == len(np.unique(rows, axis=0)) > 400
    assert np.abs((np.array(result.brier) - exact) / result.brier_se).max() < 3.5
    assert result.interval[0] < brierlm(exact) < result.interval[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(MarkovSampler, marks=pytest.mark.extended), OnlySamples])
def test_intervals_cover_and_standard_errors_are_the_true_spread(kind: type[MarkovSampler]) -> None:
    """Four hundred independent texts of one language, each evaluated on its own, exactly and from samples."""
    truth = language(alphabet_size=4, concentration=0.5)
    exact = np.array([truth.exact_brier(n) for n in (1, 2, 3, 4)])
    score, replications, size = float(brierlm(exact)), 400, 100
    sampler = kind(truth)
    results = [
        evaluate_brierlm(sampler, fresh_text(truth, size, seed), protocol(seed=seed), windows_at_once=size)
        for seed in range(replications)
    ]
    # Binomial standard deviation of the coverage: 1.1 %.
    covered = np.mean([result.interval[0] <= score <= result.interval[1] for result in results])
    assert 0.92 <= covered <= 0.98
    normal = np.mean([abs(result.brierlm - score) <= 1.96 * result.brierlm_se for result in results])
    assert 0.92 <= normal <= 0.98
    components = np.array([result.brier for result in results])
    errors = np.array([result.brier_se for result in results])
    assert ((np.abs(components - exact) <= 1.96 * errors).mean(axis=0) >= 0.92).all()
    # Unbiased, and the reported errors are what the estimates really scatter by.
    spread = components.std(axis=0, ddof=1)
    assert (np.abs(components.mean(axis=0) - exact) < 3.5 * spread / np.sqrt(replications)).all()
    np.testing.assert_allclose(np.sqrt((errors**2).mean(axis=0)), spread, rtol=0.12)
    scores = [result.brierlm for result in results]
    assert np.mean([result.brierlm_se for result in results]) == pytest.approx(np.std(scores, ddof=1), rel=0.12)
    for result in results[:40]:
        np.testing.assert_allclose(result.brier_se_delta, result.brier_se, rtol=0.15)
        assert result.brierlm_se_delta == pytest.approx(result.brierlm_se, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(MarkovSampler, marks=pytest.mark.extended), OnlySamples])
def test_intervals_of_paired_differences_cover(kind: type[MarkovSampler]) -> None:
    """The difference between the truth and a slightly wrong model is known."""
    truth = language(alphabet_size=4, concentration=0.5)
    model = blurred(truth, 0.1)
    difference = float(brierlm(expected_components(truth, truth)) - brierlm(expected_components(truth, model)))
    assert expected_components(truth, truth) == pytest.approx([truth.exact_brier(n) for n in (1, 2, 3, 4)])
    replications, size = 200, 60
    found, spread = [], []
    for seed in range(replications):
        text, rules = fresh_text(truth, size, seed), protocol(seed=seed, num_samples=8)
        right, wrong = (evaluate_brierlm(kind(m), text, rules, windows_at_once=size) for m in (truth, model))
        found.append(compare(right.scored, wrong.scored))
        spread.append(np.hypot(right.brierlm_se, wrong.brierlm_se))
    covered = np.mean([low <= difference <= high for low, high in (one.interval for one in found)])
    # Binomial standard deviation of the coverage: 1.5 %.
    assert 0.91 <= covered <= 0.985
    values, errors = np.array([[one.value, one.standard_error] for one in found]).T
    assert abs(values.mean() - difference) < 3.5 * values.std(ddof=1) / np.sqrt(replications)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.12)
    assert [one.delta_error for one in found] == pytest.approx(errors, rel=0.25)
    assert errors.mean() < 0.6 * np.mean(spread)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_wrong_model_scores_lower(share: float) -> None:
    truth = language()
    text = text_of(truth, 800)
    right = evaluate_brierlm(MarkovSampler(truth), text, protocol(num_samples=8))
    wrong = evaluate_brierlm(MarkovSampler(blurred(truth, share)), text, protocol(num_samples=8))
    difference = paired_difference(right.sums, wrong.sums, seed=0)
    assert difference.value > 2 * difference.standard_error
    other = evaluate_brierlm(MarkovSampler(language(seed=1)), text, protocol(num_samples=8))
    assert other.brierlm < 0.5 * wrong.brierlm


def test_a_token_model_scores_its_exact_value() -> None:
    """Real model, vocabulary of three: the expected score on this very text, from all 81 4-grams' probabilities."""
    torch.manual_seed(0)
    config = LanguageModel(
        kind="token", chunk_size=1, hidden_size=16, intermediate_size=24, num_layers=2, num_attention_heads=2
    )
    model = TokenModel(config, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape))
    rules = protocol(context_length=16, first_position=4, position_stride=4, num_samples=12)
    text = Documents(np.random.default_rng(0).integers(0, 2, (60, 15)), vocab_size=3)
    result = evaluate_brierlm(ModelSampler(model), text, rules)

    grams = torch.tensor(list(itertools.product(range(3), repeat=4)))
    exact = []
    for window, position in itertools.product(torch.from_numpy(text.tokens).view(60, 16), rules.positions):
        texts = torch.cat([window[:position].expand(81, -1), grams], dim=1)
        with torch.no_grad():
            following = model.probabilities(model.hidden_states(texts))[:, position - 1 : -1].double()
        joint = following.gather(2, grams[..., None]).squeeze(-1).prod(1)
        target = window[position : position + 4]
        row = []
        for n in (1, 2, 3, 4):
            merged = joint.view(3**n, -1).sum(1)
            code = (target[:n] * 3 ** torch.arange(n - 1, -1, -1)).sum()
            row.append((2 * merged[code] - merged.square().sum()).item())
        exact.append(row)
    # The text is the same on both sides, so only the sampling errs, by less than the standard error over documents.
    assert np.abs((np.array(result.brier) - np.mean(exact, axis=0)) / result.brier_se).max() < 2.5
    assert np.std(exact, axis=0).min() > 0.01


def test_batches_and_other_windows_do_not_change_a_window() -> None:
    truth = language()
    text, sampler = text_of(truth, 40), MarkovSampler(truth)
    calls: list[tuple[int, int]] = []
    whole = evaluate_brierlm(sampler, text, protocol(), progress=lambda *done: calls.append(done), windows_at_once=16)
    assert calls == [(16, 40), (32, 40), (40, 40)]
    small = evaluate_brierlm(sampler, text, protocol(), windows_at_once=3)
    np.testing.assert_array_equal(small.sums.totals, whole.sums.totals)
    assert small.interval == whole.interval
    fewer = evaluate_brierlm(sampler, text, protocol(max_windows=20))
    assert fewer.sums.clusters.tolist() == list(range(0, 40, 2))  # spread over the text
    np.testing.assert_array_equal(fewer.sums.totals, whole.sums.totals[::2])
    assert fewer.protocol_hash != whole.protocol_hash
    other = evaluate_brierlm(sampler, text, protocol(seed=1))
    assert other.brierlm != whole.brierlm


def test_few_documents_are_replaced_by_windows() -> None:
    truth = language()
    codes = np.stack([truth.sample_codes(document, 42 * 30) for document in range(4)]) + ord("a")
    result = evaluate_brierlm(MarkovSampler(truth), Documents(codes), protocol())
    assert result.num_documents == 4
    assert result.error_unit == "window"
    assert len(result.sums.counts) == result.num_windows == 120
    exact = brierlm(np.array([truth.exact_brier(n) for n in (1, 2, 3, 4)]))
    assert abs(result.brierlm - exact) < 3.5 * result.brierlm_se


def test_texts_with_ends_inside_windows_and_ngrams() -> None:
    """Short documents: every position is scored and belongs to the document of its n-gram's first token."""
    truth = language(order=3)
    codes = np.stack([truth.sample_codes(document, 6) for document in range(300)]) + ord("a")
    result = evaluate_brierlm(MarkovSampler(truth), Documents(codes), protocol(position_stride=4))
    assert result.num_positions == result.num_windows * 9
    assert result.sums.counts.sum() == result.num_positions
    assert 200 < result.num_documents <= 300
    # The language draws no ends, so n-grams with one are lost: less than its exact score, but not nothing.
    assert 0.5 * truth.exact_brier(1) < result.brier[0] < truth.exact_brier(1)
    assert result.brier[3] < truth.exact_brier(4)


def test_dict_is_json_and_complete() -> None:
    truth = language()
    result = evaluate_brierlm(MarkovSampler(truth), text_of(truth, 20), protocol())
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert Protocol.model_validate(plain["protocol"]) == protocol()
    assert plain["protocol_hash"] == protocol().hash
    assert set(plain) >= {"brierlm", "brierlm_se", "brier", "brier_se", "interval", "num_positions", "num_documents"}
    assert (plain["estimator"], plain["protocol"]["name"]) == ("exact", "matched")
    assert not {"sums", "noise"} & set(plain)
    assert len(plain["brier_se_delta"]) == 4
    assert (len(plain["brier"]), len(plain["brier_se"]), len(plain["interval"])) == (4, 4, 2)


class FourAtATime(MarkovSampler):
    chunk_size = 4


@pytest.mark.parametrize(
    ("sampler", "text", "changes", "message"),
    [
        (MarkovSampler, 2, {}, r"84 tokens .* scoring needs 3 windows of 42 tokens"),
        (MarkovSampler, 20, {"max_windows": 1}, "max_windows is 1.*raise evaluation.max_windows to 3 or more"),
        (FourAtATime, 20, {"first_position": 6}, "first_position 6 is not a multiple of the model's chunk size 4"),
        (FourAtATime, 20, {"position_stride": 2}, "position_stride 2 is not a multiple"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    sampler: type[MarkovSampler], text: int, changes: dict[str, object], message: str
) -> None:
    truth = language()
    with pytest.raises(EvaluationError, match=message):
        evaluate_brierlm(sampler(truth), text_of(truth, text), protocol(**changes))


def test_another_vocabulary_or_decode_mode_is_refused() -> None:
    truth = language()
    text: TokenSource = Documents(np.zeros((20, LETTERS)), vocab_size=300)
    with pytest.raises(EvaluationError, match="vocabulary of 257 tokens, the text one of 300"):
        evaluate_brierlm(MarkovSampler(truth), text, protocol())
    colder = protocol().model_copy(update={"decode_mode": "sample T=0.5"})
    with pytest.raises(EvaluationError, match=r"'sample T=0\.5' cannot be scored"):
        evaluate_brierlm(MarkovSampler(truth), text_of(truth, 20), colder)


def test_text_of_another_language_is_refused() -> None:
    with pytest.raises(ValueError, match="other than the bytes of 'abc'"):
        evaluate_brierlm(MarkovSampler(language(alphabet_size=3)), text_of(language(), 20), protocol())


@pytest.mark.parametrize("kind", [MarkovSampler, OnlySamples])
def test_the_protocol_of_the_paper(kind: type[MarkovSampler]) -> None:
    truth = language()
    text, rules = text_of(truth, 600), protocol(protocol="paper")
    result = evaluate_brierlm(kind(truth), text, rules)
    exact = np.array([truth.exact_brier(n) for n in (1, 2, 3, 4)])
    assert result.estimator == ("two-prefix" if kind is MarkovSampler else "teacher-forced")
    assert result.num_samples == 2
    assert result.num_positions == 600 * (LETTERS + 1 - 4)
    # The last n-grams of a document run over its end, which the language never draws.
    assert np.abs((np.array(result.brier) / exact - 1)[:2]).max() < 0.1
    assert result.brierlm < 1.05 * brierlm(exact)


def test_estimators_agree_within_their_errors_and_can_be_chosen() -> None:
    truth = language()
    text = text_of(truth, 300)
    exact = evaluate_brierlm(MarkovSampler(truth), text, protocol(num_samples=8))
    pairs = evaluate_brierlm(MarkovSampler(truth), text, protocol(num_samples=8), estimator="all-pairs")
    two = evaluate_brierlm(MarkovSampler(truth), text, protocol(num_samples=8), estimator="two-sample")
    assert (exact.estimator, pairs.estimator, two.estimator) == ("exact", "all-pairs", "two-sample")
    assert (exact.num_samples, pairs.num_samples, two.num_samples) == (2, 8, 2)
    assert exact.protocol_hash == pairs.protocol_hash == two.protocol_hash
    assert exact.brierlm_se < pairs.brierlm_se < two.brierlm_se
    for other in (pairs, two):
        difference = compare(exact.scored, other.scored)
        assert abs(difference.value) < 3 * difference.standard_error
    with pytest.raises(EvaluationError, match="needs a model's probabilities"):
        evaluate_brierlm(OnlySamples(truth), text, protocol(), estimator="exact")


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
@pytest.mark.parametrize("estimator", ["exact", "all-pairs"])
@pytest.mark.parametrize("part", ["backbone.layers.0.self_attn.k_proj.weight", "lm_head.weight"])
def test_weights_that_are_not_finite_are_named(part: str, estimator: Estimator, value: float) -> None:
    """Those of attention, too, which on a CPU gives ordinary numbers from them."""
    torch.manual_seed(0)
    config = LanguageModel(
        kind="token", chunk_size=1, hidden_size=16, intermediate_size=24, num_layers=1, num_attention_heads=2
    )
    broken = TokenModel(config, 257)
    with torch.no_grad():
        broken.get_parameter(part)[0, 0] = value
    with pytest.raises(EvaluationError, match=rf"no score can be given: the model's weights \({part}\) are not finite"):
        evaluate_brierlm(ModelSampler(broken), text_of(language(), 20), protocol(), estimator=estimator)


@pytest.mark.parametrize("part", ["backbone.layers.0.mlp.up_proj.weight", "lm_head.weight"])
def test_nan_in_a_models_output_is_an_error_that_names_the_window(part: str) -> None:
    torch.manual_seed(0)
    config = LanguageModel(
        kind="token", chunk_size=1, hidden_size=16, intermediate_size=24, num_layers=1, num_attention_heads=2
    )
    text = text_of(language(), 20)
    sampler = ModelSampler(TokenModel(config, 257))
    assert evaluate_brierlm(sampler, text, protocol()).num_positions == 100
    broken = TokenModel(config, 257)
    with torch.no_grad():
        broken.get_parameter(part).fill_(3e38)
    with pytest.raises(EvaluationError, match=r"no score .* window of tokens 0 to 41 of the test split .* not finite"):
        evaluate_brierlm(ModelSampler(broken), text, protocol())


def test_nan_from_a_single_token_names_the_window_that_holds_it() -> None:
    """Of which the model computes NaN: the windows before and after it could be scored."""

    class NoNumber(TokenModel):
        def embed(self, tokens: Tensor) -> Tensor:
            return torch.where(tokens[..., None] == 0, torch.nan, super().embed(tokens))

    torch.manual_seed(0)
    config = LanguageModel(
        kind="token", chunk_size=1, hidden_size=16, intermediate_size=24, num_layers=1, num_attention_heads=2
    )
    model, text = NoNumber(config, 257), text_of(language(), 20)
    text.tokens[5 * 42 + 3] = 0
    # Of single tokens nothing that was drawn is read.
    rules = protocol().model_copy(update={"ngram_lengths": (1,)})
    with pytest.raises(EvaluationError, match="window of tokens 210 to 251 of the test split"):
        evaluate_brierlm(ModelSampler(model), text, rules)


@pytest.mark.parametrize("kind", [MarkovSampler, OnlySamples])
def test_documents_shorter_than_the_ngrams(kind: type[MarkovSampler]) -> None:
    """Two letters and an end: every position is scored, but no 3-gram can be right, so the score is 0."""
    truth = language()
    codes = np.stack([truth.sample_codes(document, 2) for document in range(400)]) + ord("a")
    result = evaluate_brierlm(kind(truth), Documents(codes), protocol(position_stride=1))
    assert result.num_positions == result.num_windows * (LETTERS + 1 - 4 - 4 + 1)
    assert result.brier[0] > 0
    assert max(result.brier[2:]) < 0
    assert result.brierlm == 0.0
    assert result.brierlm_se_delta is None


def test_a_text_shorter_than_a_window_is_refused() -> None:
    text = Documents(np.zeros((1, 1)))
    with pytest.raises(EvaluationError, match=r"2 tokens .* needs 3 windows of 42 tokens"):
        evaluate_brierlm(MarkovSampler(language()), text, protocol())


def test_copies_of_a_document_are_one_in_errors() -> None:
    """A text with every document ten times says as much as once: the error is as large, and documents are counted."""
    truth = language()
    once = text_of(truth, 60)
    rows = once.tokens.reshape(60, -1)[:, :-1]
    ten = Documents(rows.repeat(10, axis=0))
    single = evaluate_brierlm(MarkovSampler(truth), once, protocol(num_samples=8))
    copied = evaluate_brierlm(MarkovSampler(truth), ten, protocol(num_samples=8))
    assert (single.num_documents, copied.num_documents) == (60, 60)
    assert copied.brierlm_se == pytest.approx(single.brierlm_se, rel=0.15)  # not a third of it
    few = Documents(rows[:5].repeat(40, axis=0))
    as_windows = evaluate_brierlm(MarkovSampler(truth), few, protocol(num_samples=8))
    assert (as_windows.error_unit, as_windows.num_documents) == ("window", 5)
    assert len(as_windows.sums.counts) <= 15
    with pytest.raises(EvaluationError, match=r"copies of 1 documents.*: add other documents to the corpus"):
        evaluate_brierlm(MarkovSampler(truth), Documents(rows[:1].repeat(40, axis=0)), protocol())
    added = evaluate_brierlm(
        MarkovSampler(truth), Documents(np.vstack([rows[:1].repeat(40, axis=0), rows])), protocol()
    )
    assert (added.error_unit, added.num_documents) == ("document", 60)
