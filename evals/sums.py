"""Sums of scores by document, kept on disk, so that two models can be compared long after both were scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from evals.estimators import Estimator
from evals.protocol import EvaluationError
from evals.sampling_noise import SamplingNoise
from evals.stats import ClusterSums, Comparison, pooled_difference

FILE = "documents.arrow"
_METADATA = b"calm_bench.scored_sums"


@dataclass(frozen=True)
class ScoredSums:
    """Per-document sums of one model's scores, and what they are sums of."""

    sums: ClusterSums
    noise: SamplingNoise | None
    """What more samples per position would take away; None if it is not known."""
    ngram_lengths: tuple[int, ...]
    protocol_hash: str
    estimator: Estimator
    num_samples: int
    error_unit: Literal["document", "window"]
    """What a row is."""


def save_sums(scored: ScoredSums, path: Path) -> None:
    """Write an Arrow file: a row per document with its index, its number of positions and its sum of each Brier-n."""
    sums = scored.sums
    columns: dict[str, Any] = {scored.error_unit: sums.clusters.astype(np.int64), "positions": sums.counts}
    columns |= {f"brier_{n}": sums.totals[:, index] for index, n in enumerate(scored.ngram_lengths)}
    noise = scored.noise
    described = {
        "ngram_lengths": scored.ngram_lengths,
        "protocol_hash": scored.protocol_hash,
        "estimator": scored.estimator,
        "num_samples": scored.num_samples,
        "error_unit": scored.error_unit,
        "noise": noise and {"per_sample": noise.per_sample.tolist(), "per_pair": noise.per_pair.tolist()},
    }
    batch = pa.record_batch(columns)
    schema = batch.schema.with_metadata({_METADATA: json.dumps(described).encode()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch.cast(schema))


def load_sums(path: Path) -> ScoredSums:
    """Read what :func:`save_sums` wrote.

    Raises:
        EvaluationError: there is no such file, or it holds something else.
    """
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
            described = json.loads(table.schema.metadata[_METADATA])
            names = [f"brier_{n}" for n in described["ngram_lengths"]]
            # By DLPack: pyarrow's own way imports pandas, which takes longer than all else here.
            columns: list[Any] = [
                np.from_dlpack(table.column(name).combine_chunks())
                for name in (described["error_unit"], "positions", *names)
            ]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path} holds no sums of scores ({type(error).__name__}: {error}); evaluate the model again"
        ) from error
    clusters, counts, *totals = columns
    noise = described["noise"]
    return ScoredSums(
        sums=ClusterSums(clusters.copy(), np.stack(totals, axis=1), counts.copy()),
        noise=noise and SamplingNoise(np.array(noise["per_sample"]), np.array(noise["per_pair"])),
        ngram_lengths=tuple(described["ngram_lengths"]),
        protocol_hash=described["protocol_hash"],
        estimator=described["estimator"],
        num_samples=described["num_samples"],
        error_unit=described["error_unit"],
    )


def compare(first: ScoredSums, second: ScoredSums, seed: int = 0) -> Comparison:
    """BrierLM of ``first`` minus that of ``second`` on their common positions, with a 95 % interval.

    Raises:
        EvaluationError: they were scored under different protocols or on different documents.
    """
    return compare_seeds([first], [second], seed)


def compare_seeds(first: Sequence[ScoredSums], second: Sequence[ScoredSums], seed: int = 0) -> Comparison:
    """As :func:`compare`, for the means of several seeds (:func:`evals.stats.pooled_difference`).

    Raises:
        EvaluationError: they were scored under different protocols or on different documents.
    """
    hashes = list(dict.fromkeys(scored.protocol_hash for scored in (*first, *second)))
    if len(hashes) > 1:
        raise EvaluationError(
            f"the two were scored under different protocols ({' and '.join(hashes)}), so "
            "their positions are not the same: score both by the same settings, which calm-bench compare takes behind "
            "their names (corpus.source=..., evaluation.context_length=... and whatever else differs)"
        )
    try:
        return pooled_difference([scored.sums for scored in first], [scored.sums for scored in second], seed)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
