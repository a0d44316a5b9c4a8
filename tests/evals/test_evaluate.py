"""BrierLM end to end: known languages, honest intervals, properness, batches, real models and refusals."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from calm_bench.config import Corpus, Evaluation, LanguageModel, Markov, Tokens
from calm_bench.corpora import write_corpus
from calm_bench.corpora.markov import MarkovLanguage
from calm_bench.lm import TokenModel
from calm_bench.tokens import TokenStream, write_tokens
from evals.brier import Integers, brierlm
from evals.evaluate import EvaluationError, MarkovSampler, ModelSampler, TokenSource, evaluate_brierlm
from evals.protocol import Protocol, protocol_for
from evals.stats import paired_difference

LETTERS = 41
"""Document length; with its end a document fills a window of 42 exactly."""


class Documents:
    """Documents of equal length in memory, each followed by an end."""

    vocab_size = 257

    def __init__(self, codes: Integers, vocab_size: int = 257) -> None:
        self.vocab_size = vocab_size
        end = np.full((len(codes), 1), vocab_size - 1)
        self.length = codes.shape[1] + 1
        self.tokens = np.concatenate([codes, end], axis=1).ravel().astype(np.int64)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, span: slice, /) -> Integers:
        return self.tokens[span]

    def document_of(self, positions: Integers, /) -> Integers:
        return positions // self.length


def protocol(**changes: object) -> Protocol:
    settings = {"context_length": LETTERS + 1, "first_position": 4, "position_stride": 8, "num_samples": 4}
    return protocol_for(Evaluation.model_validate(settings | changes), "corpus", "tokenizer")


def language(order: int = 1, alphabet_size: int = 6, concentration: float = 0.3, seed: int = 0) -> MarkovLanguage:
    return MarkovLanguage(Markov(order=order, alphabet_size=alphabet_size, concentration=concentration, seed=seed))


def text_of(truth: MarkovLanguage, num_documents: int) -> Documents:
    codes = np.stack([truth.sample_codes(document, LETTERS) for document in range(num_documents)])
    return Documents(codes + ord("a"))


def fresh_text(truth: MarkovLanguage, num_documents: int, seed: int) -> Documents:
    """As :func:`text_of`, all documents at once and from another stream: fast enough for many replications."""
    uniform = np.random.default_rng(seed).random((num_documents, LETTERS))
    codes = np.empty((num_documents, 0), dtype=np.int64)
    for letter in range(LETTERS):
        cumulative = truth.next_probabilities(codes).cumsum(axis=-1)
        drawn = (cumulative[:, :-1] <= uniform[:, letter, None]).sum(axis=-1)
        codes = np.concatenate([codes, drawn[:, None]], axis=1)
    return Documents(codes + ord("a"))


def blurred(truth: MarkovLanguage, share: float) -> MarkovLanguage:
    """The language with ``share`` of every distribution spread evenly."""
    wrong = MarkovLanguage(truth.config)
    wrong.transition = (1 - share) * truth.transition + share / len(truth.letters)
    return wrong


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
    assert result.num_documents == len(stream) // (LETTERS + 1) > 400
    assert np.abs((np.array(result.brier) - exact) / result.brier_se).max() < 3.5
    assert result.interval[0] < brierlm(exact) < result.interval[1]


@pytest.mark.slow
def test_intervals_cover_and_standard_errors_are_the_true_spread() -> None:
    """Four hundred independent texts of one language, each evaluated on its own."""
    truth = language(alphabet_size=4, concentration=0.5)
    exact = np.array([truth.exact_brier(n) for n in (1, 2, 3, 4)])
    score, replications, size = float(brierlm(exact)), 400, 100
    sampler = MarkovSampler(truth)
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
    assert "sums" not in plain
    assert (len(plain["brier"]), len(plain["brier_se"]), len(plain["interval"])) == (4, 4, 2)


class FourAtATime(MarkovSampler):
    chunk_size = 4


@pytest.mark.parametrize(
    ("sampler", "text", "changes", "message"),
    [
        (MarkovSampler, 2, {}, r"84 tokens .* scoring needs 3 windows of 42 tokens"),
        (MarkovSampler, 20, {"max_windows": 1}, "max_windows is 1"),
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
