"""A synthetic language whose truth is known: a random Markov chain over letters, with its exact scores.

Shapes: A letters, k order; a context is the last k letters, so contexts form an array ``[A] * k`` indexed oldest first.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from calm_bench.config import Corpus, Markov
from calm_bench.corpora.base import CorpusError, Document, Skipped
from calm_bench.seeding import derive

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

MAX_ENTRIES = 2**24
"""Most entries of a transition array; 128 MiB."""
MAX_DENSE_CONTEXTS = 1024
"""Up to here the stationary distribution is solved for, beyond it iterated to."""
STATIONARY_TOLERANCE = 1e-13
MAX_ITERATIONS = 100_000
DOCUMENTS_AT_ONCE = 256


class MarkovLanguage:
    """An order-k chain with Dirichlet transition rows, everything drawn from ``config.seed``.

    Documents start in the stationary distribution, so the exact scores hold at every position.

    Raises:
        CorpusError: order and alphabet need more than ``MAX_ENTRIES`` transition probabilities.
    """

    def __init__(self, config: Markov) -> None:
        size, order = config.alphabet_size, config.order
        # Compared as logarithms: the power itself may be astronomically large.
        if (order + 1) * np.log(size) > np.log(MAX_ENTRIES):
            raise CorpusError(
                f"corpus.markov of order {order} over {size} letters has {size}^{order + 1} transition probabilities, "
                f"more than {MAX_ENTRIES}; lower corpus.markov.order or corpus.markov.alphabet_size"
            )
        self.config = config
        self.order = order
        self.letters = string.ascii_lowercase[:size]
        self.transition: Floats = _dirichlet_rows(
            _random(config.seed, "transition"), config.concentration, (size,) * order, size
        )
        """``[A] * k -> [A]``: probability of the next letter, last axis, given the k before it, oldest first."""

    @cached_property
    def stationary(self) -> Floats:
        """``[A] * k``: long-run probability of each context.

        Raises:
            CorpusError: the chain mixes too slowly to compute it.
        """
        size = len(self.letters)
        contexts = size**self.order
        if contexts <= MAX_DENSE_CONTEXTS:
            step = np.zeros((contexts, contexts))
            rows = np.arange(contexts)[:, None]
            # The context after letter x forgets its oldest letter: (c mod A^(k-1)) * A + x.
            columns = rows % (contexts // size) * size + np.arange(size)
            np.add.at(step, (rows, columns), self.transition.reshape(contexts, size))
            equations = np.vstack([step.T - np.eye(contexts), np.ones(contexts)])
            solution = np.linalg.lstsq(equations, np.append(np.zeros(contexts), 1.0), rcond=None)[0]
            clipped = np.clip(solution, 0.0, None).reshape(self.transition.shape[:-1])
            return np.asarray(clipped / clipped.sum())
        now = np.full(self.transition.shape[:-1], 1.0 / contexts)
        for _ in range(MAX_ITERATIONS):
            after = (now[..., None] * self.transition).sum(axis=0)
            if np.abs(after - now).sum() < STATIONARY_TOLERANCE:
                return np.asarray(after / after.sum())
            now = after
        raise CorpusError(
            f"the markov chain of order {self.order} mixes too slowly for its exact scores; "
            "raise corpus.markov.concentration or lower corpus.markov.order"
        )

    def exact_cross_entropy(self) -> float:
        """Entropy rate, nats per letter: the lowest cross-entropy any model reaches, sum_c pi(c) H(P(. | c))."""
        logarithms = np.log(np.where(self.transition > 0, self.transition, 1.0))
        return float(-(self.stationary[..., None] * self.transition * logarithms).sum())

    def exact_brier(self, n: int) -> float:
        """Expected Brier-n of the true model, ``sum_c pi(c) sum_x P(x | c)^2`` over the n-grams x.

        With P the truth, E[2 P(y) - sum_x P(x)^2] = sum_x P(x)^2 (paper, section 4).
        """
        return float((self.stationary * self.exact_brier_by_context(n)).sum())

    def exact_brier_by_context(self, n: int) -> Floats:
        """``[A] * k``: Brier-n of the true model after each context, ``V_n(c) = sum_x P(x | c)^2 V_{n-1}(c x)``."""
        if n < 0:
            raise ValueError(f"n-grams have a length of 0 or more, not {n}")
        value = np.ones(self.transition.shape[:-1])
        for _ in range(n):
            # V_{n-1} is indexed by the letters 2..k of the context and the new one: the axes of P without its first.
            value = (self.transition**2 * value[None]).sum(axis=-1)
        return value

    def next_probabilities(self, contexts: npt.ArrayLike) -> Floats:
        """``[..., L] -> [..., A]``: probabilities of the letter after contexts of letter codes, oldest first.

        Only the last k codes matter; a context shorter than k is taken as the end of a stationary text.
        """
        codes = np.asarray(contexts, dtype=np.int64)
        known = min(codes.shape[-1], self.order)
        if codes.size and not (codes.min() >= 0 and codes.max() < len(self.letters)):
            raise ValueError(f"letter codes lie in [0, {len(self.letters)}), found {codes.min()} to {codes.max()}")
        table = self.transition
        if known < self.order:
            unknown = tuple(range(self.order - known))
            joint = (self.stationary[..., None] * self.transition).sum(axis=unknown)
            table = joint / joint.sum(axis=-1, keepdims=True)
        last = codes[..., codes.shape[-1] - known :]
        return np.asarray(table[tuple(np.moveaxis(last, -1, 0))]) if known else _broadcast(table, codes.shape[:-1])

    def sample_codes(self, document: int, length: int) -> Codes:
        """``[length]``: the letter codes of document number ``document``, a pure function of seed and number."""
        return np.asarray(self._sample(np.asarray([document]), length)[0])

    def sample_documents(self, num_documents: int, length: int) -> Iterator[str]:
        """Documents 0, 1, ... of ``length`` letters each."""
        letters = np.frombuffer(self.letters.encode(), dtype=np.uint8)
        for first in range(0, num_documents, DOCUMENTS_AT_ONCE):
            documents = np.arange(first, min(first + DOCUMENTS_AT_ONCE, num_documents))
            for codes in self._sample(documents, length):
                yield letters[codes].tobytes().decode()

    @cached_property
    def _cumulative(self) -> tuple[Floats, Floats]:
        """Cumulative probabilities of contexts, ``[A^k]``, and of the letter after each, ``[A^k, A]``."""
        rows = self.transition.reshape(-1, len(self.letters))
        return np.cumsum(self.stationary.ravel()), np.cumsum(rows, axis=-1)

    def _sample(self, documents: Codes, length: int) -> Codes:
        size = len(self.letters)
        # One stream per document: its text does not depend on how many are made at once.
        uniform = np.stack([_random(self.config.seed, "document", int(d)).random_sample(length + 1) for d in documents])
        stationary, cumulative = self._cumulative
        contexts = np.searchsorted(stationary, uniform[:, 0] * stationary[-1], side="right")
        first = np.stack(np.unravel_index(contexts, self.transition.shape[:-1]), axis=-1)
        codes = np.empty((len(documents), max(length, self.order)), dtype=np.int64)
        codes[:, : self.order] = first
        for position in range(self.order, length):
            letter = _draw(cumulative[contexts], uniform[:, position])
            codes[:, position] = letter
            contexts = contexts % (len(cumulative) // size) * size + letter
        return codes[:, :length]


class MarkovSource:
    """Documents of a :class:`MarkovLanguage`."""

    fields: tuple[str, ...] = ("markov",)

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        """Nothing: the settings and the seed determine every letter."""
        return {}

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        texts = MarkovLanguage(config.markov).sample_documents(
            config.markov.num_documents, config.markov.document_length
        )
        return (Document(text, f"markov document {number}") for number, text in enumerate(texts))


def _random(seed: int, *names: str | int) -> np.random.RandomState:
    """NumPy's legacy generator, because only its streams are promised to stay the same between versions."""
    return np.random.RandomState(np.random.MT19937(derive(seed, "markov", *names)))


def _dirichlet_rows(random: np.random.RandomState, concentration: float, shape: tuple[int, ...], size: int) -> Floats:
    """Dirichlet rows as normalised gamma variables, kept as logarithms: tiny concentrations underflow otherwise.

    If G ~ Gamma(a + 1) and U is uniform, G * U^(1/a) ~ Gamma(a).
    """
    gamma = random.standard_gamma(concentration + 1.0, size=(*shape, size))
    uniform = 1.0 - random.random_sample((*shape, size))
    logarithms = np.log(gamma) + np.log(uniform) / concentration
    weights = np.exp(logarithms - logarithms.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _draw(cumulative: Floats, uniform: Floats) -> Codes:
    """Index drawn per row of cumulative probabilities ``[R, N]`` by ``uniform`` ``[R]``."""
    # Scaled by the last entry, which rounding may leave just below 1.
    return np.asarray((cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(axis=-1))


def _broadcast(row: Floats, shape: tuple[int, ...]) -> Floats:
    return np.broadcast_to(row, (*shape, len(row))).copy()


SOURCE = MarkovSource()
