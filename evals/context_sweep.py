"""How the score of one model moves with the length of its left context, on one set of targets.

Within a protocol a target sees as far back as its window's start. Here every target is scored again and again with
exactly c tokens before it, so that nothing but c differs between two lengths and their difference is a paired one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from calm_bench.seeding import derive
from evals.clusters import MIN_CLUSTERS, ErrorUnit, TokenSource, clusters_of
from evals.estimators import Estimator, estimator_for, samples_used, value_of_a_match
from evals.evaluate import WINDOWS_AT_ONCE, Scoring, check_protocol, window_starts
from evals.protocol import EvaluationError, Protocol
from evals.samplers import Sampler
from evals.stats import ClusterSums, Comparison, cluster_sums, paired_difference, summarise


@dataclass(frozen=True)
class ContextPoint:
    """The score with one length of context."""

    context_length: int
    """Tokens before every target."""
    brierlm: float
    brierlm_se: float
    interval: tuple[float, float]
    """95 %."""
    brier: tuple[float, ...]
    brier_se: tuple[float, ...]
    difference: float
    """BrierLM minus that with the longest context; 0 for the longest."""
    difference_se: float
    difference_interval: tuple[float, float]
    """95 %, paired."""
    sums: ClusterSums = field(repr=False)
    """Not part of the dict."""


@dataclass(frozen=True)
class ContextSweep:
    """One model's scores by context length."""

    points: tuple[ContextPoint, ...]
    """Shortest context first."""
    num_positions: int
    num_documents: int
    num_samples: int
    estimator: Estimator
    error_unit: ErrorUnit
    protocol: Protocol
    """Protocol from which targets, samples and seed are taken; its own context length has no part in the scores."""
    protocol_hash: str
    wall_time_s: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; tuples become lists."""
        plain: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["protocol"] = self.protocol.model_dump(mode="json")
        plain["points"] = [
            {f.name: _plain(getattr(point, f.name)) for f in fields(point) if f.name != "sums"} for point in self.points
        ]
        return plain


def sweep_context(
    sampler: Sampler,
    stream: TokenSource,
    protocol: Protocol,
    lengths: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    estimator: Estimator | None = None,
) -> ContextSweep:
    """Score the protocol's targets with ``c`` tokens of context for every c of ``lengths``.

    The targets are those of the protocol's windows that have ``max(lengths)`` tokens of the stream before them, the
    same for all lengths. A context may reach back over its window's start and into the documents before.

    Args:
        lengths: in tokens; multiples of the model's chunk size.
        progress: called with (contexts scored, contexts in all), over all lengths.

    Raises:
        EvaluationError: lengths that the model cannot use, too little text before the targets, or whatever
            :func:`evals.evaluate.evaluate_brierlm` refuses.
    """
    begun = time.perf_counter()
    check_protocol(sampler, stream, protocol)
    lengths = _checked(lengths, sampler.chunk_size)
    estimator = estimator_for(sampler, protocol, estimator)
    starts = window_starts(len(stream), protocol.context_length, protocol.max_windows)
    targets = (starts[:, None] + np.array(protocol.positions)).ravel()
    windows = np.repeat(np.arange(len(starts)), len(protocol.positions))
    reachable = targets >= lengths[-1]
    targets, windows = targets[reachable], windows[reachable]
    if len(np.unique(windows)) < MIN_CLUSTERS:
        raise EvaluationError(
            f"the {protocol.split} split has {len(stream)} tokens, of which fewer than {MIN_CLUSTERS} scored windows "
            f"of {protocol.context_length} have {lengths[-1]} tokens before their targets: take shorter contexts or "
            f"raise corpus.{protocol.split}_fraction"
        )
    clusters = clusters_of(stream, targets, windows)
    scoring = Scoring(sampler, stream, protocol, estimator)
    sums = []
    for number, length in enumerate(lengths):
        told = _told(progress, number * len(targets), len(lengths) * len(targets))
        scores, _ = scoring.score(
            targets - length,
            length + protocol.horizon,
            [length],
            targets,
            max(1, WINDOWS_AT_ONCE * protocol.context_length // (length + protocol.horizon)),
            told,
        )
        sums.append(cluster_sums(scores, clusters.index))
    match_value, seed = value_of_a_match(estimator, protocol.num_samples), derive(protocol.seed, "bootstrap")
    return ContextSweep(
        points=tuple(_point(c, own, sums[-1], match_value, seed) for c, own in zip(lengths, sums, strict=True)),
        num_positions=len(targets),
        num_documents=clusters.num_documents,
        num_samples=samples_used(estimator, protocol.num_samples),
        estimator=estimator,
        error_unit=clusters.unit,
        protocol=protocol,
        protocol_hash=protocol.hash,
        wall_time_s=time.perf_counter() - begun,
    )


def _point(length: int, sums: ClusterSums, longest: ClusterSums, match_value: float, seed: int) -> ContextPoint:
    summary = summarise(sums, match_value, seed)
    same = Comparison(0.0, 0.0, (0.0, 0.0), 0.0, (), (), (), p_value=1.0)
    difference = same if sums is longest else paired_difference(sums, longest, seed)
    return ContextPoint(
        context_length=length,
        brierlm=summary.brierlm.value,
        brierlm_se=summary.brierlm.standard_error,
        interval=summary.brierlm.interval,
        brier=tuple(summary.components.tolist()),
        brier_se=tuple(summary.component_errors.tolist()),
        difference=difference.value,
        difference_se=difference.standard_error,
        difference_interval=difference.interval,
        sums=sums,
    )


def _checked(lengths: Sequence[int], chunk_size: int) -> list[int]:
    """Increasing and without repetitions."""
    found = sorted(set(lengths))
    if not found or found[0] < 1:
        raise EvaluationError(f"context lengths must be positive, found {list(lengths)}")
    wrong = [length for length in found if length % chunk_size]
    if wrong:
        raise EvaluationError(
            f"a context of {wrong[0]} tokens is not a multiple of the model's chunk size {chunk_size}"
        )
    return found


def _told(progress: Callable[[int, int], None] | None, before: int, total: int) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
