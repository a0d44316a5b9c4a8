"""What BrierLM can be measured on: anything that draws independent continuations of a text.

:class:`Sampler` is all that a model must offer. Two optional methods make scoring cheaper, and the functions of this
module use them where they exist: ``continue_windows`` continues one text at many positions without reading it anew
for each, ``trace_windows`` tells exact probabilities.

Shape letters: W windows, L tokens, P positions, S samples, H tokens drawn, C contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np

from calm_bench.seeding import derive
from evals.brier import Floats, Integers

if TYPE_CHECKING:
    import torch

    from calm_bench.lm.base import ChunkLanguageModel

TOKENS_AT_ONCE = 1 << 16
"""Tokens of the contexts, counted once per sample, that :meth:`ModelSampler.sample` reads together."""
NOT_DRAWN = -1
"""In place of a token of :meth:`WindowSampler.continue_windows` that could not matter."""


class Sampler(Protocol):
    """Draws continuations at temperature 1; token models, chunk models and known languages alike.

    A class may declare what it is and cost, as the numbers ``parameters``, ``training_flops`` and
    ``inference_flops_per_token``, which its row on a leaderboard shows then.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def chunk_size(self) -> int:
        """K: windows are continued at multiples of K only; 1 if at any position."""
        ...

    def sample(self, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        """``[C, S, H]`` independent continuations of every context, token ids ``[L_c]`` of any, unequal lengths.

        Context c's continuations depend on ``seeds[c]`` and its own tokens, not on the rest of the batch.
        """
        ...


@runtime_checkable
class WindowSampler(Protocol):
    """A :class:`Sampler` that reads a window once and continues it at many positions."""

    def continue_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        targets: Integers | None = None,
    ) -> Integers:
        """``[W, P, S, H]`` independent continuations of ``windows[w, :t]`` (``[W, L]``) for every position t.

        Window w's continuations depend on ``seeds[w]`` and its own tokens, not on the rest of the batch.

        Args:
            targets: ``[W, P, h]``, the first h <= H tokens that follow. With them a sample need not be continued once
                it can equal neither them nor, up to H tokens, another sample of its position; tokens not drawn are -1.
        """
        ...


class Traces(NamedTuple):
    """Exact probabilities along targets and along drawn continuations."""

    target: Floats
    """``[W, P, H]``: probability of each target token given the text and the targets before it."""
    tokens: Integers
    """``[W, P, S, H - 1]``: the drawn continuations."""
    collision: Floats
    """``[W, P, S, H]``: ``sum_v p(v)^2`` of the next token after the first 0 to H - 1 drawn ones."""


@runtime_checkable
class ProbabilitySampler(Protocol):
    """A :class:`Sampler` that knows its probabilities; token by token they take no sampling."""

    @property
    def has_probabilities(self) -> bool:
        """Whether :meth:`trace_windows` can be called; a model that is read from a folder may be of either kind."""
        ...

    def trace_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        squared: bool,
    ) -> Traces:
        """Continue ``windows[w, :t]`` for every position t, and tell the probabilities on the way.

        Window w's traces depend on ``seeds[w]`` and its own tokens, not on the rest of the batch.

        Args:
            windows: ``[W, L]``, targets included: t + H <= L.
            squared: draw tokens with probability proportional to ``p(v)^2`` instead of ``p(v)``, for which every
                sample counts to its end. Otherwise samples are compared with each other, and one that has parted from
                all others of its position need not be continued: its further tokens are -1, its collisions 0.
        """
        ...


def has_probabilities(sampler: Sampler) -> TypeGuard[ProbabilitySampler]:
    """Whether exact probabilities can be had from ``sampler``."""
    return isinstance(sampler, ProbabilitySampler) and sampler.has_probabilities


def continue_windows(
    sampler: Sampler,
    windows: Integers,
    positions: Sequence[int],
    num_samples: int,
    horizon: int,
    seeds: Sequence[int],
    targets: Integers | None = None,
) -> Integers:
    """:meth:`WindowSampler.continue_windows` of any sampler; one without it reads every prefix as a context.

    Raises:
        EvaluationError: as :func:`sample_contexts`.
    """
    if isinstance(sampler, WindowSampler):
        found = sampler.continue_windows(windows, positions, num_samples, horizon, seeds, targets)
        shape = (len(windows), len(positions), num_samples, horizon)
        return _checked(sampler, "continue_windows", found, shape, 0 if targets is None else NOT_DRAWN)
    contexts = [window[:position] for window in windows for position in positions]
    own = [derive(seed, "position", position) for seed in seeds for position in positions]
    drawn = sample_contexts(sampler, contexts, num_samples, horizon, own)
    return drawn.reshape(len(windows), len(positions), num_samples, horizon)


def sample_contexts(
    sampler: Sampler, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]
) -> Integers:
    """:meth:`Sampler.sample` of a sampler of anybody's.

    Raises:
        EvaluationError: what it gives are no draws: another shape, whose numbers would be taken for other draws, no
            whole numbers, or tokens outside its vocabulary.
    """
    found = sampler.sample(contexts, num_samples, horizon, seeds)
    return _checked(sampler, "sample", found, (len(contexts), num_samples, horizon), 0)


def _checked(sampler: Sampler, method: str, drawn: Any, shape: tuple[int, ...], least: int) -> Integers:
    """What ``method`` drew, whose tokens are ``least`` or more."""
    from evals.protocol import EvaluationError

    found, name = np.asarray(drawn), f"{type(sampler).__name__}.{method}"
    if found.shape != shape:
        asked = f"{shape[0]} {'contexts' if len(shape) == 3 else 'windows'}"
        asked += "" if len(shape) == 3 else f" at {shape[1]} positions"
        raise EvaluationError(
            f"{name} of {asked}, num_samples={shape[-2]} and horizon={shape[-1]} gives {found.shape} instead of {shape}"
        )
    if found.dtype.kind not in "iu":
        raise EvaluationError(f"{name} gives numbers of the kind {found.dtype}, and token ids are whole numbers")
    if found.size and not (found.min() >= least and found.max() < sampler.vocab_size):
        raise EvaluationError(
            f"{name} gives tokens from {found.min()} to {found.max()}, outside its vocabulary of {sampler.vocab_size}: "
            f"token ids are 0 to {sampler.vocab_size - 1}"
        )
    return found


class ModelSampler:
    """A trained language model, in evaluation mode."""

    def __init__(self, model: ChunkLanguageModel, eos_id: int | None = None, check_weights: bool = True) -> None:
        """
        Args:
            eos_id: end of a text, which precedes a context shorter than a chunk; only :meth:`sample` needs it.
            check_weights: look for NaN among all weights of ``model``; false where that was done.
        """
        self._model = model.eval()
        self._eos_id = eos_id
        self._weights_are_checked = not check_weights

    @property
    def chunk_size(self) -> int:
        return self._model.chunk_size

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size

    def sample(self, contexts: Sequence[Integers], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        """See :class:`Sampler`.

        Chunks are aligned with a context's end: up to K - 1 of its first tokens are left out. A context shorter than
        a chunk, an empty one too, is filled up in front with end-of-text tokens.

        Raises:
            ValueError: a context shorter than a chunk, and no ``eos_id`` was given; a token that the model does not
                have; or numbers of contexts and seeds that differ.
            NotFinite: the model computed NaN, or its weights hold it.
        """
        if len(seeds) != len(contexts):
            raise ValueError(f"{len(contexts)} contexts need as many seeds, found {len(seeds)}")
        texts = [self._whole_chunks(context) for context in contexts]
        drawn = np.empty((len(texts), num_samples, horizon), dtype=np.int64)
        # Contexts of similar length share a batch, so that little is padded.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        while order:
            size = max(1, TOKENS_AT_ONCE // (num_samples * len(texts[order[-1]])))
            batch, order = order[-size:], order[:-size]
            drawn[batch] = self._sample([texts[c] for c in batch], num_samples, horizon, [seeds[c] for c in batch])
        return drawn

    def continue_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        targets: Integers | None = None,
    ) -> Integers:
        import torch

        from calm_bench.sampling.continuations import sample_continuations

        self._check_weights()
        with torch.inference_mode():
            drawn = sample_continuations(
                self._model,
                torch.from_numpy(windows),
                positions,
                num_samples,
                horizon,
                self._generators(seeds),
                None if targets is None else torch.from_numpy(targets),
            )
        continuations: Integers = drawn.cpu().numpy()
        return continuations

    @property
    def has_probabilities(self) -> bool:
        from calm_bench.lm.exact import ExactModel

        return isinstance(self._model, ExactModel)

    def trace_windows(
        self,
        windows: Integers,
        positions: Sequence[int],
        num_samples: int,
        horizon: int,
        seeds: Sequence[int],
        squared: bool,
    ) -> Traces:
        """See :class:`ProbabilitySampler`.

        Raises:
            ValueError: a model that has no probabilities.
            NotFinite: the model computed NaN, or its weights hold it.
        """
        import torch

        from calm_bench.lm.exact import ExactModel
        from calm_bench.sampling.traces import trace_continuations

        if not isinstance(self._model, ExactModel):
            raise ValueError("the model has no probabilities; only samples can score it")
        self._check_weights()
        text, generators = torch.from_numpy(windows), self._generators(seeds)
        with torch.inference_mode():
            traced = trace_continuations(
                self._model, text, positions, num_samples, horizon, generators, squared, not squared
            )
        target, tokens, collision = (part.cpu().numpy() for part in traced)
        return Traces(target.astype(np.float64), tokens, collision.astype(np.float64))

    def _sample(self, texts: Sequence[list[int]], num_samples: int, horizon: int, seeds: Sequence[int]) -> Integers:
        import torch

        from calm_bench import blockwise
        from calm_bench.sampling.reader import Reader

        generators = self._generators(seeds)
        rows = max(1, blockwise.MAX_LOGITS // self.vocab_size)

        def draw(hidden: torch.Tensor, count: int, own: list[torch.Generator]) -> torch.Tensor:
            blocks = range(0, len(hidden), rows)
            parts = [self._model.draw_rows(hidden[b : b + rows], count, own[b : b + rows]) for b in blocks]
            return torch.cat(parts, dim=1).transpose(0, 1)  # [rows, count, K]

        self._check_weights()
        with torch.inference_mode():
            reader = Reader(self._model, texts)
            chunks = [draw(reader.hidden, num_samples, generators).flatten(0, 1)]  # [C * S, K]
            if horizon > self.chunk_size:
                reader.keep([row for row in range(len(texts)) for _ in range(num_samples)])
                own = [generator for generator in generators for _ in range(num_samples)]
                while len(chunks) * self.chunk_size < horizon:
                    reader.read(chunks[-1])
                    chunks.append(draw(reader.hidden, 1, own)[:, 0])
            drawn = torch.cat(chunks, dim=1)[:, :horizon].unflatten(0, (len(texts), num_samples))
        continuations: Integers = drawn.cpu().numpy()
        return continuations

    def _whole_chunks(self, context: Integers) -> list[int]:
        tokens: list[int] = np.asarray(context, dtype=np.int64).tolist()
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
            raise ValueError(f"tokens {min(tokens)} to {max(tokens)} are not in the vocabulary of {self.vocab_size}")
        if len(tokens) >= self.chunk_size:
            return tokens[len(tokens) % self.chunk_size :]
        if self._eos_id is None:
            raise ValueError(
                f"a context of {len(tokens)} tokens is shorter than the model's chunk of {self.chunk_size}: give "
                "ModelSampler the end-of-text token (eos_id) that is to precede it"
            )
        return [self._eos_id] * (self.chunk_size - len(tokens)) + tokens

    def _check_weights(self) -> None:
        """Once: text is scored batch by batch, by weights that stay as they are."""
        from calm_bench.finite import require_finite_weights

        if not self._weights_are_checked:
            require_finite_weights(self._model.named_parameters())
        self._weights_are_checked = True

    def _generators(self, seeds: Sequence[int]) -> list[torch.Generator]:
        import torch

        device = next(self._model.parameters()).device
        return [torch.Generator(device=device).manual_seed(seed) for seed in seeds]
