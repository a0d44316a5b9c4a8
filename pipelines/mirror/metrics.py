"""What calm-bench writes into a run: training metrics by step and by FLOPs, the row's numbers, the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.config import Experiment
from pipelines.mirror.address import masked

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from pipelines.leaderboard.entry import Entry

TRAINED_KINDS = ("autoencoder", "language_model")
"""Stages that write ``metrics.jsonl``."""

_NOT_BY_FLOPS = frozenset(
    {"learning_rate", "grad_norm", "grad_norm_head", "grad_norm_backbone", "plateau", "tokens_per_second"}
)
_ROW_METRICS = (
    "brierlm",
    "brierlm_se",
    "num_positions",
    "num_documents",
    "num_samples",
    "autoencoder_accuracy",
    "parameters",
    "autoencoder_parameters",
    "training_flops",
    "autoencoder_training_flops",
    "total_training_flops",
    "inference_flops_per_token",
    "wall_time_s",
    "total_wall_time_s",
    "tokens",
    "tokens_per_second",
)


@dataclass(frozen=True)
class Line:
    """One line of a stage's ``metrics.jsonl``; ``time`` is in seconds since the stage's start."""

    kind: str
    split: str
    step: int
    flops: float
    time: float
    metrics: Mapping[str, float]


def read_lines(kind: str, folder: Path) -> list[Line]:
    """All whole lines of ``folder/metrics.jsonl``; none where a stage has no such file."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").split("\n") if text.endswith("}")]
    return [
        Line(kind, row["split"], int(row["step"]), float(row["flops"]), float(row["time"]), row["metrics"])
        for row in rows
    ]


def metrics_of(line: Line, start_ms: int) -> Iterator[Metric]:
    """The line's values by step and, for the language model's losses, by GFLOPs spent in training it.

    The run's start and the line's own time, not the clock, date them: a line sent twice must be the same row.
    """
    from mlflow.entities import Metric

    when = start_ms + round(1000 * line.time)
    by_gflops = round(line.flops / 1e9)
    prefix = "" if line.kind == "language_model" else f"{line.kind}_"
    for name, value in line.metrics.items():
        if value is None:
            continue
        yield Metric(f"{prefix}{line.split}/{name}", float(value), when, line.step)
        if not prefix and name not in _NOT_BY_FLOPS:
            yield Metric(f"by_gflops/{line.split}_{name}", float(value), when, by_gflops)


def row_metrics(entry: Entry) -> dict[str, float]:
    """The numbers of a leaderboard row under the names they have in MLflow."""
    values = {name: getattr(entry, name) for name in _ROW_METRICS}
    values |= {f"brier_{n}": value for n, value in enumerate(entry.brier, start=1)}
    values |= {f"brier_{n}_se": value for n, value in enumerate(entry.brier_se, start=1)}
    for score in entry.tasks:
        name = f"task/{score.name.replace(' ', '/')}"
        values |= {name: score.value, f"{name}_se": score.standard_error, f"{name}_draws_se": score.monte_carlo_error}
    return {name: float(value) for name, value in values.items() if value is not None}


def probe_metrics(probes: Mapping[str, Any], when: int) -> Iterator[Metric]:
    """An autoencoder's probes: each curve a metric whose step is its level, bits or hundredths of noise.

    Args:
        probes: of the autoencoder's result; nothing where it has none.
        when: milliseconds since 1970.
    """
    from mlflow.entities import Metric

    if not probes:
        return
    collapsed = probes["collapsed"]
    yield Metric("autoencoder_probe/collapsed_dimensions", float(collapsed["value"]), when, 0)
    yield Metric("autoencoder_probe/posterior_std", float(probes["posterior_std"]), when, 0)
    for curve, steps_per_level in (("bits", 1), ("noise", 100)):
        for point in probes[curve]:
            step = round(steps_per_level * point["level"])
            accuracy = point["accuracy"]
            yield Metric(f"autoencoder_probe/accuracy_{curve}", accuracy["value"], when, step)
            yield Metric(f"autoencoder_probe/accuracy_{curve}_se", accuracy["standard_error"], when, step)


def parameters_of(experiment: Experiment) -> dict[str, str]:
    """The resolved experiment by dotted path, without what cannot matter to it."""
    parameters = dict(_flat(experiment.model_dump(mode="json"), ""))
    unused = []
    if experiment.model.kind == "token":
        unused += ["autoencoder.", "model.head."]
    if experiment.corpus.source != "markov":
        unused.append("corpus.markov.")
    return {name: value for name, value in parameters.items() if not name.startswith(tuple(unused))}


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else name)
    else:
        yield path, masked(value) if isinstance(value, str) else json.dumps(value)
