"""A synthetic language as the model of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evals.brier import Floats, Integers
from evals.samplers import Traces

if TYPE_CHECKING:
    from calm_bench.corpora.markov import MarkovLanguage


class MarkovSampler:
    """A synthetic language as the model of itself, on byte tokens: the reference whose exact Brier-n is known.

    The end of a document is no part of the language, so no end is ever drawn, and a text that follows one is taken as
    the beginning of a new document. Exact scores hold for n-grams that no end interrupts.
    """

    chunk_size = 1
    vocab_size = 257
    _END = 256

    def __init__(self, language: MarkovLanguage) -> None:
        self._language = language
        self._order = language.transition.ndim - 1
        self._letters = np.frombuffer(language.letters.encode(), dtype=np.uint8).astype(np.int64)
        self._code_of = np.full(self.vocab_size, -1, dtype=np.int64)
        self._code_of[self._letters] = np.arange(len(self._letters))

    def sample(self, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        """See :class:`evals.samplers.Sampler`; an empty context begins a document.

        Raises:
            ValueError: as :meth:`continue_windows`.
        """
        windows = np.full((len(contexts), self._order), self._END, dtype=np.int64)
        for row, context in zip(windows, contexts, strict=True):
            last = np.asarray(context, dtype=np.int64)[-self._order :]
            row[self._order - len(last) :] = last
        return self.continue_windows(windows, [self._order], num_samples, horizon, seeds)[:, 0]

    def continue_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        targets: Integers | None = None,
    ) -> Integers:
        """See :class:`evals.samplers.WindowSampler`.

        Raises:
            ValueError: the text holds tokens that are neither letters of the language nor ends of documents.
        """
        self._check(windows)
        shape = (len(windows), len(positions), num_samples)
        uniform = np.stack([np.random.default_rng(seed).random((*shape[1:], horizon)) for seed in seeds])
        context = np.stack([self._known(windows, position) for position in positions], axis=1)
        context = np.broadcast_to(context[:, :, None], (*shape, self._order))
        drawn = np.empty((*shape, horizon), dtype=np.int64)
        for step in range(horizon):
            drawn[..., step] = _draw(self._probabilities(context), uniform[..., step])
            context = np.concatenate([context[..., 1:], drawn[..., step : step + 1]], axis=-1)
        return self._letters[drawn]

    has_probabilities = True

    def trace_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        squared: bool,
    ) -> Traces:
        """See :class:`evals.samplers.ProbabilitySampler`; the end of a document has probability 0.

        Raises:
            ValueError: as :meth:`continue_windows`.
        """
        self._check(windows)
        shape = (len(windows), len(positions), num_samples)
        uniform = np.stack([np.random.default_rng(seed).random((*shape[1:], horizon)) for seed in seeds])
        target = np.empty((*shape[:2], horizon))
        for index, position in enumerate(positions):
            for step in range(horizon):
                chances = self._probabilities(self._known(windows, position + step))
                code = self._code_of[windows[:, position + step]]
                found = np.take_along_axis(chances, np.maximum(code, 0)[:, None], axis=-1)[:, 0]
                target[:, index, step] = np.where(code < 0, 0.0, found)
        context = np.stack([self._known(windows, position) for position in positions], axis=1)
        context = np.broadcast_to(context[:, :, None], (*shape, self._order))
        drawn, collision = np.empty((*shape, horizon), dtype=np.int64), np.empty((*shape, horizon))
        for step in range(horizon):
            chances = self._probabilities(context)
            collision[..., step] = (chances**2).sum(axis=-1)
            drawn[..., step] = _draw(chances**2 if squared else chances, uniform[..., step])
            context = np.concatenate([context[..., 1:], drawn[..., step : step + 1]], axis=-1)
        return Traces(target, self._letters[drawn[..., :-1]], collision)

    def _check(self, windows: Integers) -> None:
        if ((self._code_of[windows] < 0) & (windows != self._END)).any():
            raise ValueError(f"the text holds tokens other than the bytes of {self._language.letters!r}")

    def _known(self, windows: Integers, position: int) -> Integers:
        """Codes of the letters before ``position``, ``[W, order]``; -1 where there are none of the same document."""
        context = np.full((len(windows), self._order), -1, dtype=np.int64)
        known = self._code_of[windows[:, max(0, position - self._order) : position]]
        lost = np.logical_or.accumulate(known[:, ::-1] < 0, axis=1)[:, ::-1]
        context[:, self._order - known.shape[1] :] = np.where(lost, -1, known)
        return context

    def _probabilities(self, context: Integers) -> Floats:
        """``[..., A]`` after ``context [..., order]``, whose unknown letters, -1, come first."""
        chances = np.empty((*context.shape[:-1], len(self._letters)))
        num_known = (context >= 0).sum(axis=-1)
        for known in np.unique(num_known).tolist():
            here = num_known == known
            chances[here] = self._language.next_probabilities(context[here][:, self._order - known :])
        return chances


def _draw(weights: Floats, uniform: Floats) -> Integers:
    """Indices drawn in proportion to ``weights [..., A]`` by ``uniform [...]``."""
    cumulative = weights.cumsum(axis=-1)
    # Scaled by the last entry, which rounding may leave just below 1.
    drawn: Integers = (cumulative <= (uniform * cumulative[..., -1])[..., None]).sum(axis=-1)
    return drawn
