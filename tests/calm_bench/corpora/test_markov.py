"""The language of known truth, against brute force and against its own samples."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from calm_bench.config import Corpus, Markov
from calm_bench.corpora import CorpusError, read_documents, write_corpus
from calm_bench.corpora.markov import MarkovLanguage

SMALL = [
    Markov(order=1, alphabet_size=4),
    Markov(order=2, alphabet_size=3, concentration=0.3, seed=1),
    Markov(order=3, alphabet_size=2, concentration=2.0, seed=2),
]


@pytest.mark.parametrize("config", SMALL)
def test_rows_are_distributions_and_the_stationary_one_stays(config: Markov) -> None:
    language = MarkovLanguage(config)
    assert language.transition.shape == (config.alphabet_size,) * (config.order + 1)
    np.testing.assert_allclose(language.transition.sum(axis=-1), 1.0, atol=1e-12)
    stationary = language.stationary
    assert stationary.min() >= 0
    np.testing.assert_allclose(stationary.sum(), 1.0, atol=1e-12)
    np.testing.assert_allclose((stationary[..., None] * language.transition).sum(axis=0), stationary, atol=1e-12)


def test_iterated_and_solved_stationary_distributions_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Markov(order=2, alphabet_size=5)
    solved = MarkovLanguage(config).stationary
    monkeypatch.setattr("calm_bench.corpora.markov.MAX_DENSE_CONTEXTS", 0)
    np.testing.assert_allclose(MarkovLanguage(config).stationary, solved, atol=1e-11)


@pytest.mark.parametrize("config", SMALL)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_exact_brier_is_the_sum_over_all_n_grams(config: Markov, n: int) -> None:
    language = MarkovLanguage(config)
    letters = range(config.alphabet_size)
    expected = 0.0
    for context in product(letters, repeat=config.order):
        total = 0.0
        for gram in product(letters, repeat=n):
            probability, state = 1.0, context
            for letter in gram:
                probability *= language.transition[(*state, letter)]
                state = (*state[1:], letter)
            total += probability**2
        np.testing.assert_allclose(language.exact_brier_by_context(n)[context], total, rtol=1e-10)
        expected += language.stationary[context] * total
    assert language.exact_brier(n) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("config", SMALL)
def test_samples_have_the_exact_entropy_and_start_stationary(config: Markov) -> None:
    language = MarkovLanguage(config)
    codes = np.stack([[ord(letter) - ord("a") for letter in text] for text in language.sample_documents(300, 400)])
    first = np.bincount(codes[:, 0], minlength=config.alphabet_size) / len(codes)
    later = np.bincount(codes[:, 200], minlength=config.alphabet_size) / len(codes)
    marginal = language.stationary.sum(axis=tuple(range(1, config.order)))
    # 300 draws: five standard errors of the widest share.
    np.testing.assert_allclose(first, marginal, atol=5 * 0.5 / np.sqrt(300))
    np.testing.assert_allclose(later, marginal, atol=5 * 0.5 / np.sqrt(300))
    contexts = np.stack([codes[:, i : i - config.order] for i in range(config.order)], axis=-1)
    targets = codes[:, config.order :]
    losses = -np.log(np.take_along_axis(language.next_probabilities(contexts), targets[..., None], axis=-1))[..., 0]
    per_document = losses.mean(axis=1)
    error = per_document.std() / np.sqrt(len(per_document))
    assert abs(per_document.mean() - language.exact_cross_entropy()) < 5 * error


def test_a_uniform_coin_scores_what_it_must() -> None:
    language = MarkovLanguage(Markov(order=1, alphabet_size=2, concentration=1e9))
    assert language.exact_cross_entropy() == pytest.approx(np.log(2), abs=1e-6)
    assert [language.exact_brier(n) for n in (1, 2, 3, 4)] == pytest.approx([0.5, 0.25, 0.125, 0.0625], abs=1e-6)


def test_next_probabilities_use_the_end_of_the_context_and_average_over_what_is_unknown() -> None:
    language = MarkovLanguage(SMALL[1])
    np.testing.assert_array_equal(language.next_probabilities([0, 0, 2, 1]), language.transition[2, 1])
    assert language.next_probabilities(np.zeros((4, 5, 2), dtype=int)).shape == (4, 5, 3)
    weights = language.stationary[:, 1]
    expected = (weights[:, None] * language.transition[:, 1]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(language.next_probabilities([1]), expected)
    marginal = language.stationary.sum(axis=0)
    np.testing.assert_allclose(language.next_probabilities(np.zeros((2, 0), dtype=int)), [marginal, marginal])
    with pytest.raises(ValueError, match=r"letter codes lie in \[0, 3\)"):
        language.next_probabilities([3])


def test_tiny_concentration_gives_near_certain_rows_not_nan() -> None:
    transition = MarkovLanguage(Markov(order=1, alphabet_size=26, concentration=1e-4)).transition
    assert np.isfinite(transition).all()
    assert transition.max(axis=-1).min() > 0.9


def test_a_document_depends_on_seed_and_number_alone() -> None:
    language = MarkovLanguage(Markov(seed=3))
    many = list(language.sample_documents(300, 50))
    assert list(language.sample_documents(7, 50)) == many[:7]
    letters = "".join(language.letters[code] for code in language.sample_codes(290, 50))
    assert letters == many[290]
    assert list(language.sample_documents(1, 20)) == [many[0][:20]]
    assert list(MarkovLanguage(Markov(seed=4)).sample_documents(1, 50)) != many[:1]


def test_the_language_of_a_seed_never_changes() -> None:
    """Published scores on it would lose their meaning; NumPy's legacy streams make the promise."""
    assert next(MarkovLanguage(Markov()).sample_documents(1, 30)) == "eggbbbcdeggcdahafagcdegcdbbbfc"


def test_a_document_shorter_than_the_order() -> None:
    assert [len(text) for text in MarkovLanguage(Markov(order=3, alphabet_size=2)).sample_documents(3, 2)] == [2, 2, 2]


def test_it_is_a_corpus(tmp_path: Path) -> None:
    report = write_corpus(Corpus(source="markov", markov={"num_documents": 100, "document_length": 30}), tmp_path)
    assert sum(report.documents.values()) == 100
    assert sum(report.bytes.values()) == 3000
    assert all(len(text) == 30 and text.islower() for text in read_documents(tmp_path, "train"))
    assert report.python is None


def test_a_table_that_would_not_fit_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"26\^10001.*lower corpus\.markov\.order"):
        MarkovLanguage(Markov(order=10_000, alphabet_size=26))
