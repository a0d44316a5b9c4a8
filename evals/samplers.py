"""What BrierLM can be measured on: anything that draws independent continuations of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from evals.brier import Floats, Integers

if TYPE_CHECKING:
    from calm_bench.corpora.markov import MarkovLanguage
    from calm_bench.lm.base import ChunkLanguageModel


class ContinuationSampler(Protocol):
    """Draws continuations at temperature 1; token models, chunk models and known languages alike."""

    @property
    def chunk_size(self) -> int:
        """K: it can continue a text at multiples of K only."""
        ...

    @property
    def vocab_size(self) -> int: ...

    def sample(
        self, windows: Integers, positions: Sequence[int], num_samples: int, horizon: int, seeds: Sequence[int]
    ) -> Integers:
        """``[W, P, S, H]`` independent continuations of ``windows[w, :t]`` (``[W, L]``) for every position t.

        Window w's continuations depend on ``seeds[w]`` and its own tokens, not on the rest of the batch.
        """
        ...


class ModelSampler:
    """A trained language model, in evaluation mode."""

    def __init__(self, model: ChunkLanguageModel) -> None:
        self._model = model.eval()

    @property
    def chunk_size(self) -> int:
        return self._model.chunk_size

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size

    def sample(
        self, windows: Integers, positions: Sequence[int], num_samples: int, horizon: int, seeds: Sequence[int]
    ) -> Integers:
        import torch

        from calm_bench.sampling.continuations import sample_continuations

        device = next(self._model.parameters()).device
        generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]
        drawn = sample_continuations(
            self._model, torch.from_numpy(windows), positions, num_samples, horizon, generators
        )
        continuations: Integers = drawn.cpu().numpy()
        return continuations


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

    def sample(
        self, windows: Integers, positions: Sequence[int], num_samples: int, horizon: int, seeds: Sequence[int]
    ) -> Integers:
        """See :class:`ContinuationSampler`.

        Raises:
            ValueError: the text holds tokens that are neither letters of the language nor ends of documents.
        """
        if ((self._code_of[windows] < 0) & (windows != self._END)).any():
            raise ValueError(f"the text holds tokens other than the bytes of {self._language.letters!r}")
        shape = (len(windows), len(positions), num_samples)
        uniform = np.stack([np.random.default_rng(seed).random((*shape[1:], horizon)) for seed in seeds])
        # The letters before each position, -1 where there are none of the same document; [W, P, S, order + H].
        text = np.full((*shape, self._order + horizon), -1, dtype=np.int64)
        for index, position in enumerate(positions):
            known = self._code_of[windows[:, max(0, position - self._order) : position]]
            lost = np.logical_or.accumulate(known[:, ::-1] < 0, axis=1)[:, ::-1]
            text[:, index, :, self._order - known.shape[1] : self._order] = np.where(lost, -1, known)[:, None]
        for step in range(horizon):
            context = text[..., step : step + self._order]
            text[..., self._order + step] = self._next(context, uniform[..., step])
        return self._letters[text[..., self._order :]]

    def _next(self, context: Integers, uniform: Floats) -> Integers:
        """Codes drawn after ``context [..., order]``, whose unknown letters, -1, come first."""
        codes = np.empty(uniform.shape, dtype=np.int64)
        num_known = (context >= 0).sum(axis=-1)
        for known in np.unique(num_known).tolist():
            here = num_known == known
            cumulative = self._language.next_probabilities(context[here][:, self._order - known :]).cumsum(axis=-1)
            # Scaled by the last entry, which rounding may leave just below 1.
            codes[here] = (cumulative <= (uniform[here] * cumulative[:, -1])[:, None]).sum(axis=-1)
        return codes
