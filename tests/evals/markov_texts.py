"""Texts of synthetic languages, in memory, and what models score on them exactly."""

from __future__ import annotations

import numpy as np

from calm_bench.config import Evaluation, Markov
from calm_bench.corpora.markov import MarkovLanguage
from evals.brier import Floats, Integers
from evals.markov import MarkovSampler
from evals.protocol import Protocol, protocol_for

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

    @property
    def document_ends(self) -> Integers:
        return np.arange(1, len(self.tokens) // self.length + 1) * self.length

    def document_of(self, positions: Integers, /) -> Integers:
        return positions // self.length


def protocol(**changes: object) -> Protocol:
    settings: dict[str, object] = {
        "context_length": LETTERS + 1,
        "first_position": 4,
        "position_stride": 8,
        "num_samples": 4,
    }
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


class OnlySamples(MarkovSampler):
    """The language as a model that does not tell its probabilities."""

    has_probabilities = False


def expected_components(truth: MarkovLanguage, model: MarkovLanguage) -> Floats:
    """``[4]``: expected Brier-n of ``model`` on text of ``truth``, both of order 1 over the same letters."""
    matched, collided = np.ones(len(truth.letters)), np.ones(len(truth.letters))
    found = []
    for _ in range(4):
        # V_n(c) = sum_x w(x | c) V_{n-1}(x), with w the product of both or the square of the model's.
        matched = (truth.transition * model.transition) @ matched
        collided = (model.transition**2) @ collided
        found.append(truth.stationary @ (2 * matched - collided))
    return np.array(found)
