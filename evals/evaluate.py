"""BrierLM of anything that continues text, under a protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np

from calm_bench.seeding import derive
from evals import protocol as protocols
from evals.brier import Floats, Integers, brier_scores
from evals.samplers import ContinuationSampler, MarkovSampler, ModelSampler
from evals.stats import ClusterSums, cluster_sums, summarise

__all__ = [
    "BrierResult",
    "ContinuationSampler",
    "EvaluationError",
    "MarkovSampler",
    "ModelSampler",
    "TokenSource",
    "evaluate_brierlm",
]

MIN_DOCUMENTS = 10
"""Below this many documents a standard error between documents is mostly noise, and windows take their place."""
MIN_CLUSTERS = 3
DECODE_MODE = "sample T=1"
WINDOWS_AT_ONCE = 16


class EvaluationError(ValueError):
    """The protocol cannot be carried out on this text or this model; the message says what to change."""


class TokenSource(Protocol):
    """The part of :class:`calm_bench.tokens.TokenStream` that scoring needs."""

    @property
    def vocab_size(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> Integers: ...

    def document_of(self, positions: Integers, /) -> Integers: ...


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
    """Closed-form standard error beside the bootstrap one; None where BrierLM is 0."""
    num_positions: int
    num_windows: int
    num_documents: int
    num_samples: int
    error_unit: Literal["document", "window"]
    """What was resampled. With few documents it is windows, and the error speaks of this text, not of other texts."""
    protocol: protocols.Protocol
    protocol_hash: str
    wall_time_s: float
    sums: ClusterSums = field(repr=False)
    """Per-cluster sums, for paired comparison (:func:`evals.stats.paired_difference`); not part of the dict."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; tuples become lists."""
        plain: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sums"}
        plain["protocol"] = self.protocol.model_dump(mode="json")
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def evaluate_brierlm(
    sampler: ContinuationSampler,
    stream: TokenSource,
    protocol: protocols.Protocol,
    progress: Callable[[int, int], None] | None = None,
    windows_at_once: int = WINDOWS_AT_ONCE,
) -> BrierResult:
    """Score ``sampler`` on ``stream``, the tokens of the protocol's split.

    The stream is cut into windows of ``context_length`` tokens; a last incomplete one is left out. With
    ``max_windows`` the scored windows are spread evenly over the stream. The text is scored as packed: an
    end-of-text token is a token like others, and an n-gram may run over it into the next document; a position belongs
    to the document of its n-gram's first token.

    Args:
        progress: called with (windows done, windows in all).
        windows_at_once: affects speed and memory. Each window has a random stream of its own, so the result is the
            same up to rounding in matrix products of other sizes.

    Raises:
        EvaluationError: text too short, positions the chunk size does not reach, or another vocabulary.
    """
    _check(sampler, stream, protocol)
    begun = time.perf_counter()
    starts = _window_starts(len(stream), protocol.context_length, protocol.max_windows)
    if len(starts) < MIN_CLUSTERS:
        raise EvaluationError(
            f"the {protocol.split} split has {len(stream)} tokens and max_windows is {protocol.max_windows}: scoring "
            f"needs {MIN_CLUSTERS} windows of {protocol.context_length} tokens or more; lower "
            f"evaluation.context_length or raise corpus.{protocol.split}_fraction"
        )
    offsets = np.array(protocol.positions, dtype=np.int64)
    scores, documents = [], []
    for batch in _batches(starts, windows_at_once):
        windows = np.stack([stream[start : start + protocol.context_length] for start in batch.tolist()])
        scores.append(_score(sampler, windows.astype(np.int64), offsets, batch.tolist(), protocol))
        documents.append(stream.document_of((batch[:, None] + offsets).ravel()))
        if progress is not None:
            progress(sum(map(len, scores)), len(starts))

    per_position = np.concatenate(scores).reshape(-1, len(protocol.ngram_lengths))
    document = np.concatenate(documents)
    num_documents = len(np.unique(document))
    by_document = num_documents >= MIN_DOCUMENTS
    sums = cluster_sums(per_position, document if by_document else np.repeat(np.arange(len(starts)), len(offsets)))
    summary = summarise(sums, match_value=2.0 / protocol.num_samples, seed=derive(protocol.seed, "bootstrap"))
    return BrierResult(
        brierlm=summary.brierlm.value,
        brierlm_se=summary.brierlm.standard_error,
        interval=summary.brierlm.interval,
        brier=tuple(summary.components.tolist()),
        brier_se=tuple(summary.component_errors.tolist()),
        brierlm_se_delta=summary.brierlm_delta_error,
        num_positions=len(per_position),
        num_windows=len(starts),
        num_documents=num_documents,
        num_samples=protocol.num_samples,
        error_unit="document" if by_document else "window",
        protocol=protocol,
        protocol_hash=protocol.hash,
        wall_time_s=time.perf_counter() - begun,
        sums=sums,
    )


def _score(
    sampler: ContinuationSampler,
    windows: Integers,
    offsets: Integers,
    starts: Sequence[int],
    protocol: protocols.Protocol,
) -> Floats:
    """``[W, P, N]`` per-position Brier-n of a batch of windows."""
    targets = windows[:, offsets[:, None] + np.arange(protocol.horizon)]
    seeds = [derive(protocol.seed, "continuations", start) for start in starts]
    samples = sampler.sample(windows, offsets.tolist(), protocol.num_samples, protocol.horizon, seeds)
    return brier_scores(samples, targets, protocol.ngram_lengths)


def _window_starts(num_tokens: int, length: int, max_windows: int | None) -> Integers:
    available = num_tokens // length
    count = available if max_windows is None else min(available, max_windows)
    # Spread out rather than the first ones: more documents, hence a smaller error.
    return np.arange(count, dtype=np.int64) * available // max(count, 1) * length


def _batches(starts: Integers, size: int) -> Iterator[Integers]:
    for begin in range(0, len(starts), size):
        yield starts[begin : begin + size]


def _check(sampler: ContinuationSampler, stream: TokenSource, protocol: protocols.Protocol) -> None:
    if protocol.decode_mode != DECODE_MODE:
        raise EvaluationError(f"decode_mode {protocol.decode_mode!r} cannot be scored; there is {DECODE_MODE!r}")
    for name in ("first_position", "position_stride"):
        if getattr(protocol, name) % sampler.chunk_size:
            raise EvaluationError(
                f"evaluation.{name} {getattr(protocol, name)} is not a multiple of the model's chunk size "
                f"{sampler.chunk_size}, so the model cannot continue the text there"
            )
    if sampler.vocab_size != stream.vocab_size:
        raise EvaluationError(
            f"the model has a vocabulary of {sampler.vocab_size} tokens, the text one of {stream.vocab_size}: "
            "evaluate on text tokenized with the model's own tokenizer"
        )
