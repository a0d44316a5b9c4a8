"""BrierLM of anything that continues text, under a protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from calm_bench.seeding import derive
from evals import protocol as protocols
from evals.brier import Floats, Integers
from evals.clusters import MIN_CLUSTERS, ErrorUnit, TokenSource, clusters_of
from evals.estimators import Estimator, PositionScores, estimator_for, samples_used, score_windows, value_of_a_match
from evals.markov import MarkovSampler
from evals.protocol import EvaluationError
from evals.samplers import ModelSampler, Sampler
from evals.sampling_noise import SamplingNoise, total_noise
from evals.stats import ClusterSums, cluster_sums, summarise
from evals.sums import ScoredSums

__all__ = [
    "BrierResult",
    "Estimator",
    "EvaluationError",
    "MarkovSampler",
    "ModelSampler",
    "Sampler",
    "TokenSource",
    "evaluate_brierlm",
]

DECODE_MODE = "sample T=1"
WINDOWS_AT_ONCE = 16


@dataclass(frozen=True)
class Names:
    """What messages call settings and text: those of a study, unless set."""

    prefix: str = "evaluation."
    """Stands before a setting's name."""
    text: str = "the {split} split has"
    more_text: str = "raise corpus.{split}_fraction"


class Rules(Protocol):
    """What the protocols of tokens (:mod:`evals.protocol`) and of text (:mod:`evals.text_protocol`) share."""

    @property
    def name(self) -> str: ...

    @property
    def ngram_lengths(self) -> tuple[int, ...]: ...

    @property
    def decode_mode(self) -> str: ...

    @property
    def hash(self) -> str: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class BrierResult:
    """A BrierLM value with everything needed to judge and compare it."""

    brierlm: float
    brierlm_se: float
    interval: tuple[float, float]
    """95 % interval of BrierLM (:func:`evals.stats.summarise`)."""
    brier: tuple[float, ...]
    """Brier-n as fractions, for the n of the protocol."""
    brier_se: tuple[float, ...]
    brierlm_se_delta: float | None
    """Closed-form standard error of BrierLM; None where BrierLM is 0."""
    num_positions: int
    num_windows: int
    num_documents: int
    num_samples: int
    """Continuations drawn at every position."""
    error_unit: ErrorUnit
    """What was resampled. With few documents it is windows, and the error speaks of this text, not of other texts."""
    protocol: Rules
    protocol_hash: str
    wall_time_s: float
    sums: ClusterSums = field(repr=False)
    """Per-cluster sums, for paired comparison (:func:`evals.stats.paired_difference`); not part of the dict."""
    estimator: Estimator = "all-pairs"
    """How the expectation was estimated (:mod:`evals.estimators`); values of all estimators may be compared."""
    brier_se_delta: tuple[float, ...] = ()
    """Closed-form standard errors of Brier-n beside the bootstrap ones."""
    noise: SamplingNoise | None = field(default=None, repr=False)
    """What more samples would take away, for :mod:`evals.sample_size`; None if two samples cannot tell."""

    @property
    def scored(self) -> ScoredSums:
        """The sums with what they are sums of, to be saved and compared."""
        return ScoredSums(
            sums=self.sums,
            noise=self.noise,
            ngram_lengths=self.protocol.ngram_lengths,
            protocol_hash=self.protocol_hash,
            estimator=self.estimator,
            num_samples=self.num_samples,
            error_unit=self.error_unit,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; tuples become lists."""
        plain: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("sums", "noise")}
        plain["protocol"] = self.protocol.model_dump(mode="json")
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def evaluate_brierlm(
    sampler: Sampler,
    stream: TokenSource,
    protocol: protocols.Protocol,
    progress: Callable[[int, int], None] | None = None,
    windows_at_once: int = WINDOWS_AT_ONCE,
    estimator: Estimator | None = None,
    names: Names | None = None,
) -> BrierResult:
    """Score ``sampler`` on ``stream``, the tokens of the protocol's split.

    The stream is cut into windows of ``context_length`` tokens; a last incomplete one is left out. With
    ``max_windows`` the scored windows are spread evenly over the stream. The text is scored as packed: an
    end-of-text token is a token like others, and an n-gram may run over it into the next document, which is how a
    document shorter than n tokens is scored; a position belongs to the document of its n-gram's first token.

    Args:
        progress: called with (windows done, windows in all).
        windows_at_once: affects speed and memory. Each window has a random stream of its own, so the result is the
            same up to rounding in matrix products of other sizes.
        estimator: unset means the one of least variance that the model allows; under ``paper``, the paper's.
        names: of settings in messages; those of a study unless set.

    Raises:
        EvaluationError: text too short, positions the chunk size does not reach, another vocabulary, an estimator
            that needs probabilities of a model without, or NaN in what the model computes.
    """
    names = names or Names()
    check_protocol(sampler, stream, protocol, names)
    estimator = estimator_for(sampler, protocol, estimator)
    begun = time.perf_counter()
    starts = window_starts(len(stream), protocol.context_length, protocol.max_windows)
    if len(starts) < MIN_CLUSTERS:
        has = names.text.format(split=protocol.split)
        raise EvaluationError(
            f"{has} {len(stream)} tokens and max_windows is {protocol.max_windows}: scoring "
            f"needs {MIN_CLUSTERS} windows of {protocol.context_length} tokens or more; "
            f"{_more_windows(protocol, names)}"
        )
    scoring = Scoring(sampler, stream, protocol, estimator)
    scores, noise = scoring.score(
        starts, protocol.context_length, protocol.positions, starts, windows_at_once, progress
    )
    targets = (starts[:, None] + np.array(protocol.positions)).ravel()
    clusters = clusters_of(stream, targets, np.repeat(np.arange(len(starts)), len(protocol.positions)))
    sums = cluster_sums(scores, clusters.index)
    summary = summarise(
        sums,
        match_value=value_of_a_match(estimator, protocol.num_samples),
        seed=derive(protocol.seed, "bootstrap"),
    )
    return BrierResult(
        brierlm=summary.brierlm.value,
        brierlm_se=summary.brierlm.standard_error,
        interval=summary.brierlm.interval,
        brier=tuple(summary.components.tolist()),
        brier_se=tuple(summary.component_errors.tolist()),
        brier_se_delta=tuple(summary.delta_errors.tolist()),
        brierlm_se_delta=summary.brierlm_delta_error,
        num_positions=len(scores),
        num_windows=len(starts),
        num_documents=clusters.num_documents,
        num_samples=samples_used(estimator, protocol.num_samples),
        estimator=estimator,
        error_unit=clusters.unit,
        protocol=protocol,
        protocol_hash=protocol.hash,
        wall_time_s=time.perf_counter() - begun,
        sums=sums,
        noise=noise,
    )


@dataclass(frozen=True)
class Scoring:
    """How the n-grams of a stream are scored."""

    sampler: Sampler
    stream: TokenSource
    protocol: protocols.Protocol
    estimator: Estimator

    def score(
        self,
        starts: Integers,
        length: int,
        positions: Sequence[int],
        numbers: Integers,
        at_once: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Floats, SamplingNoise | None]:
        """Brier-n of all ``positions`` in the windows of ``length`` tokens at ``starts [W]``.

        Args:
            numbers: ``[W]``, of each window's random stream.
            at_once: windows scored together.

        Returns:
            ``[W * P, N]``, and the sampling noise of their sum.

        Raises:
            EvaluationError: the model's weights hold NaN, or it computed NaN; names them, or the window.
        """
        parts = []
        for begin in range(0, len(starts), at_once):
            batch = slice(begin, begin + at_once)
            parts.append(self._batch(starts[batch], length, positions, numbers[batch]))
            if progress is not None:
                progress(min(begin + at_once, len(starts)), len(starts))
        num_components = len(self.protocol.ngram_lengths)
        scores = np.concatenate([part.scores.reshape(-1, num_components) for part in parts])
        return scores, total_noise([part.noise for part in parts])

    def _batch(self, starts: Integers, length: int, positions: Sequence[int], numbers: Integers) -> PositionScores:
        from calm_bench.finite import NotFinite, NotFiniteWeights

        windows = np.stack([self.stream[start : start + length] for start in starts.tolist()]).astype(np.int64)
        seeds = [derive(self.protocol.seed, "continuations", number) for number in numbers.tolist()]
        rules = self.protocol.num_samples, self.protocol.ngram_lengths
        try:
            return score_windows(self.sampler, windows, positions, *rules, seeds, self.estimator)
        except NotFiniteWeights as error:
            raise EvaluationError(f"no score can be given: {error}") from error
        except NotFinite as error:
            first, last = int(starts[0]), int(starts[-1]) + length - 1
            for start, window, seed in zip(starts.tolist(), windows, seeds, strict=True):
                try:
                    score_windows(self.sampler, window[None], positions, *rules, [seed], self.estimator)
                except NotFinite:
                    first, last = start, start + length - 1
                    break
            raise EvaluationError(
                f"no score can be given: in the window of tokens {first} to {last} of the {self.protocol.split} split "
                f"{error}"
            ) from error


def _more_windows(protocol: protocols.Protocol, names: Names) -> str:
    """What gives a text more windows to be scored."""
    if protocol.max_windows is not None and protocol.max_windows < MIN_CLUSTERS:
        return f"raise {names.prefix}max_windows to {MIN_CLUSTERS} or more"
    return f"lower {names.prefix}context_length or {names.more_text.format(split=protocol.split)}"


def window_starts(num_tokens: int, length: int, max_windows: int | None) -> Integers:
    """First positions of the scored windows, spread over the text."""
    available = num_tokens // length
    count = available if max_windows is None else min(available, max_windows)
    # Spread out rather than the first ones: more documents, hence a smaller error.
    return np.arange(count, dtype=np.int64) * available // max(count, 1) * length


def check_protocol(
    sampler: Sampler, stream: TokenSource, protocol: protocols.Protocol, names: Names | None = None
) -> None:
    """
    Args:
        names: of settings in messages; those of a study unless set.

    Raises:
        EvaluationError: ``sampler`` cannot be scored on ``stream`` under ``protocol``.
    """
    if protocol.decode_mode != DECODE_MODE:
        raise EvaluationError(f"decode_mode {protocol.decode_mode!r} cannot be scored; there is {DECODE_MODE!r}")
    prefix = (names or Names()).prefix
    for name in ("first_position", "position_stride"):
        if getattr(protocol, name) % sampler.chunk_size:
            raise EvaluationError(
                f"{prefix}{name} {getattr(protocol, name)} is not a multiple of the model's chunk size "
                f"{sampler.chunk_size}, so the model cannot continue the text there"
            )
    if sampler.vocab_size != stream.vocab_size:
        raise EvaluationError(
            f"the model has a vocabulary of {sampler.vocab_size} tokens, the text one of {stream.vocab_size}: "
            "evaluate on text tokenized with the model's own tokenizer"
        )
