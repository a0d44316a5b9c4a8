"""A store with the finished stages of a large study, made from one real run, and the command run and measured.

One real run of the shipped study ``smoke`` is repeated under the identities of a large grid's stages, with other
scores: so a study of thousands of trials is there without training one.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from calm_bench.overrides import apply_settings
from pipelines.store.integrity import record_files
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.graph import corpus_identity_of, stages_for
from pipelines.study.space import grid_points, settings_at
from pipelines.study.stage import Stage

PROGRAM = "from pipelines.app.entry import main; main()"


def grid(num_trials: int) -> Study:
    """``smoke`` at several learning rates: as many trials as asked for, half of them token models."""
    rates = [1e-3 * (1 + number / num_trials) for number in range(num_trials // 2)]
    study = resolve_study("smoke").model_dump(mode="json")
    study["search"]["parameters"].append({"name": "model.training.learning_rate", "values": rates})
    return Study.model_validate(study | {"name": f"grid-{num_trials}"})


def real_run(folder: Path) -> Store:
    store = Store(folder / "smoke")
    run(
        ["run", "smoke", "--store", str(store.root), "--local", "tracking.enabled=false"],
        folder / "smoke.log",
    )
    return store


def fill(store: Store, study: Study, real: Store) -> int:
    """Put a finished folder for every stage of ``study`` into ``store``; returns how many stages there are."""
    templates = {path.name: sorted(path.iterdir()) for path in (real.root / "stages").iterdir()}
    identities = corpus_identity_of(study.corpus)
    chance = random.Random(0)
    seen: set[Stage] = set()
    for point in grid_points(study.search):
        experiment = apply_settings(study.experiment(), settings_at(study.search, point))
        graph = stages_for(experiment, lambda _: identities)
        for stage in graph.stages:
            if stage in seen:
                continue
            seen.add(stage)
            if store.is_done(stage):
                continue
            template = _template(templates[stage.kind], experiment.model.kind == "calm")
            target = store.folder(stage)
            # Only what a driver reads: the weights of two thousand models are not the question.
            shutil.copytree(template, target, ignore=shutil.ignore_patterns("model", "train", "*.arrow", "*.parquet"))
            if stage.kind == "evaluation":
                result = json.loads((target / "result.json").read_text())
                result["brierlm"] = max(0.0, result["brierlm"]) + chance.random()
                (target / "result.json").write_text(json.dumps(result))
            record_files(target)
    return len(seen)


def _template(folders: list[Path], is_calm: bool) -> Path:
    """The folder of the kind that such a model's trial has: told by the autoencoder behind it."""
    for folder in folders:
        label = json.loads((folder / "config.json").read_text())["label"]
        if ("K=2" if is_calm else "token model") in label:
            return folder
    return folders[0]


@dataclass(frozen=True)
class Ran:
    """One run of the command."""

    began: float
    """Seconds since the epoch."""
    seconds: float
    cpu: float
    """Seconds of CPU time, of all its processes."""
    megabytes: float
    """Peak of its own memory."""
    to_leaderboard: float
    """Seconds until the leaderboard is printed."""


def run(arguments: list[str], log: Path) -> Ran:
    """Run ``calm-bench`` in a process of its own."""
    began = time.time()
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        peak, shown = 0.0, None
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                break
            if shown is None and "BrierLM" in log.read_text():
                shown = time.perf_counter() - start
            time.sleep(0.05)
        process.wait()
    if process.returncode != 0:
        raise SystemExit(f"calm-bench {' '.join(arguments)} ended with {process.returncode}: see {log}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = time.perf_counter() - start
    return Ran(began, seconds, cpu, peak, seconds if shown is None else shown)


@contextmanager
def kept_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
