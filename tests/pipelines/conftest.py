"""Rows and trial outcomes as a finished study leaves them, without the minutes of training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Experiment
from calm_bench.overrides import apply_settings
from pipelines.results.entry import Entry
from pipelines.study.config import Study
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.trial import TrialOutcome


def entry(**changes: Any) -> Entry:
    row: dict[str, Any] = {
        "study": "k-ablation",
        "trial": 0,
        "label": "K=4",
        "kind": "calm",
        "chunk_size": 4,
        "head": "energy",
        "seed": 0,
        "parameters": 912_345,
        "autoencoder_parameters": 143_000,
        "autoencoder_accuracy": 0.99934,
        "brier": (0.301, 0.132, 0.078, 0.045),
        "brier_se": (0.006, 0.003, 0.002, 0.001),
        "brierlm": 10.87,
        "brierlm_se": 0.27,
        "num_positions": 21_344,
        "num_documents": 412,
        "num_samples": 8,
        "protocol_hash": "3f9a0c1be27d5a44",
        "training_flops": 5.2e12,
        "autoencoder_training_flops": 2.6e12,
        "total_training_flops": 7.8e12,
        "inference_flops_per_token": 8.9e5,
        "decode_mode": "sample T=1",
        "wall_time_s": 92.4,
        "total_wall_time_s": 123.4,
        "tokens": 3.1e6,
        "tokens_per_second": 21_034.0,
        "corpus_digest": "ab" * 32,
        "model_identity": "0011223344556677",
        "model_folder": "runs/stages/language_model/0011223344556677/model",
    }
    return Entry(**(row | changes))


@pytest.fixture
def make_entry() -> Callable[..., Entry]:
    """Builds a row; keyword arguments replace fields."""
    return entry


@pytest.fixture
def ablation() -> list[Entry]:
    """Five rows as in the K ablation; only K=1 is on neither Pareto front."""
    rows = [
        ("token", "token", 1, 24.71, 1.31e13, 0.0, 2.1e6),
        ("K=1", "calm", 1, 18.77, 1.92e13, 2.1e12, 3.4e6),
        ("K=2", "calm", 2, 14.97, 9.8e12, 2.3e12, 1.6e6),
        ("K=4", "calm", 4, 10.87, 5.2e12, 2.6e12, 8.9e5),
        ("K=8", "calm", 8, 4.86, 3.0e12, 3.4e12, 5.2e5),
    ]
    return [
        entry(
            trial=trial,
            label=label,
            kind=kind,
            chunk_size=chunk_size,
            head=None if kind == "token" else "energy",
            autoencoder_accuracy=None if kind == "token" else 0.99934,
            brierlm=score,
            brierlm_se=score / 40,
            training_flops=flops,
            autoencoder_training_flops=autoencoder,
            total_training_flops=flops + autoencoder,
            inference_flops_per_token=inference,
        )
        for trial, (label, kind, chunk_size, score, flops, autoencoder, inference) in enumerate(rows)
    ]


def metric_lines(steps: range) -> list[dict[str, Any]]:
    """What a training stage writes: a line each step, with a validation at every fifth."""
    lines = []
    for step in steps:
        common = {"step": step, "tokens": 2048.0 * step, "flops": 3e9 * step, "time": 0.25 * step, "total_steps": 100}
        loss = 5.0 / math.sqrt(step + 1)
        lines.append({**common, "split": "train", "metrics": {"loss": loss, "learning_rate": 1e-3}})
        if step % 5 == 0:
            lines.append({**common, "split": "validation", "metrics": {"loss": loss + 0.1}})
    return lines


def stage_graph(experiment: Experiment) -> StageGraph:
    corpus = Stage("corpus", 1, {"source": experiment.corpus.source})
    tokens = Stage("tokens", 1, {"tokenizer": experiment.tokens.tokenizer}, {"corpus": corpus})
    stages, inputs = [corpus, tokens], {"tokens": tokens}
    if experiment.model.kind == "calm":
        autoencoder = Stage("autoencoder", 1, {"chunk_size": experiment.model.chunk_size}, {"tokens": tokens})
        stages.append(autoencoder)
        inputs["autoencoder"] = autoencoder
    model = Stage("language_model", 1, {"seed": experiment.seed, "model": experiment.model.model_dump()}, inputs)
    evaluation = Stage("evaluation", 1, {"protocol": {"split": "test"}}, {"tokens": tokens, "language_model": model})
    return StageGraph((*stages, model, evaluation))


STARTED = 2_000_000_000.0
"""Seconds since 1970 at which every trial's first stage was begun; each kind comes a minute after the one before."""


def write_stage(root: Path, stage: Stage, steps: range, result: dict[str, Any], place: int = 0) -> Path:
    folder = root / "stages" / stage.kind / stage.identity
    folder.mkdir(parents=True, exist_ok=True)
    attempts = [{"started": STARTED + 60 * place, "host": "here", "pid": 1, "device": "cpu"}]
    provenance = {"versions": {"calm-bench": "0.1.0", "python": "3.11"}, "device": "cpu: x86_64", "wall_time_s": 50.0}
    for name, content in (
        ("config.json", stage.description()),
        ("result.json", result),
        ("provenance.json", provenance | {"attempts": attempts}),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    if stage.kind in ("autoencoder", "language_model"):
        text = "".join(json.dumps(line) + "\n" for line in metric_lines(steps))
        (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def make_outcome(tmp_path: Path) -> Callable[..., TrialOutcome]:
    """Builds a complete trial of ``study`` with its stage folders under ``tmp_path``."""

    def make(
        study: Study, number: int, label: str, settings: dict[str, Any], steps: range = range(100)
    ) -> TrialOutcome:
        experiment = apply_settings(study.experiment(), settings)
        graph = stage_graph(experiment)
        training = {"training_flops": 2e12, "wall_time_s": 31.0, "tokens": 1e6, "tokens_per_second": 2e4}
        results: dict[str, dict[str, Any]] = {
            "corpus": {"digest": "cd" * 32},
            "tokens": {},
            "autoencoder": {
                **training,
                "parameters": 143_000,
                "accuracy": 0.9995,
                "accuracy_tokens": 50_000,
                "probes": {
                    "posterior_std": 0.3,
                    "collapsed": {"value": 2},
                    "noise": [{"level": 0.3, "accuracy": {"value": 0.99, "standard_error": 0.001}}],
                    "bits": [
                        {"level": 1.0, "accuracy": {"value": 0.5, "standard_error": 0.002}},
                        {"level": 2.0, "accuracy": {"value": 0.9, "standard_error": 0.003}},
                    ],
                },
            },
            "language_model": {
                **training,
                "parameters": 900_000,
                "training_flops": 9e12,
                "wall_time_s": 90.0,
                "inference_flops_per_token": 8e5,
                "decode_mode": "sample T=1",
                "autoencoder_parameters": 143_000,
            },
            "evaluation": {
                "brier": [0.3, 0.2, 0.1, 0.05],
                "brier_se": [0.01, 0.01, 0.01, 0.01],
                "brierlm": 13.16 - number,
                "brierlm_se": 0.4,
                "num_positions": 1000,
                "num_documents": 40,
                "num_samples": 8,
                "protocol_hash": "aa" * 8,
            },
        }
        return TrialOutcome(
            number=number,
            label=label,
            settings=settings,
            state="complete",
            experiment=experiment,
            graph=graph,
            results={kind: results[kind] for kind in graph},
            folders={
                kind: write_stage(tmp_path, stage, steps, results[kind], place)
                for place, (kind, stage) in enumerate(graph.items())
            },
        )

    return make
