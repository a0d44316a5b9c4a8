"""What running a study costs beyond its stages: driver time per cached stage, start of a cached study, memory, Ray.

    python -m bench.orchestration cached     # one number each; all run calm-bench itself in a process of its own
    python -m bench.orchestration memory
    python -m bench.orchestration overhead   # needs an idle machine: twelve trainings of about 20 s on two cores

Cached studies are made from one real run of the shipped study ``smoke``: its stage folders are repeated under the
identities of a large grid's stages, with other scores.
"""

from __future__ import annotations

import argparse
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
from typing import Any

import psutil
import yaml

from calm_bench.overrides import apply_settings
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study
from pipelines.study.graph import corpus_identity_of, stages_for
from pipelines.study.space import grid_points, settings_at
from pipelines.study.stage import Stage

PROGRAM = "from pipelines.app.entry import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cached", "memory", "overhead"))
    parser.add_argument("--trials", type=int, help="of the cached study; 200 for cached, 2000 for memory")
    parser.add_argument("--no-mlflow", action="store_true", help="without MLflow")
    parser.add_argument("--keep", type=Path, help="keep the store in this folder, and use what it holds")
    parser.add_argument("--ideal", type=float, default=20.0, help="overhead: seconds of one training")
    arguments = parser.parse_args()
    with _folder(arguments.keep) as folder:
        if arguments.what == "overhead":
            overhead(folder, arguments.ideal)
        else:
            trials = arguments.trials or (200 if arguments.what == "cached" else 2000)
            cached(folder, trials, not arguments.no_mlflow)


def cached(folder: Path, num_trials: int, with_mlflow: bool) -> None:
    """Seconds to the leaderboard and peak memory of a study that has everything; the first run fills MLflow."""
    study = _grid(num_trials)
    store = Store(folder / "runs")
    stages = fill(store, study, _real_run(folder))
    file = folder / f"grid-{num_trials}.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    settings = ["--local"] if with_mlflow else ["--local", "tracking.enabled=false"]
    for name in ("first run", "again"):
        ran = _run(["run", str(file), "--store", str(store.root), *settings], folder / f"{name}.log")
        print(
            f"{num_trials} cached trials, {stages} stages, MLflow {'on' if with_mlflow else 'off'}, {name}: "
            f"{ran.to_leaderboard:.1f} s to the leaderboard, {1000 * ran.to_leaderboard / stages:.1f} ms per cached "
            f"stage; {ran.seconds:.1f} s to the end, {ran.cpu:.1f} s of CPU time, peak {ran.megabytes:.0f} MB",
            flush=True,
        )


def overhead(folder: Path, ideal_s: float) -> None:
    """Twelve equal trainings under Ray on two cores: the start, and wall time beyond it against the sum of all stages.

    The start is from the command until a worker takes the first stage; Ray starts in it. A stage is counted from when
    its worker takes it, so with the imports of a worker's first stage, until it is done.
    """
    calibration = resolve_study("smoke", ["tracking.enabled=false", *_SPIN, "search.parameters.0.include=[token]"])
    steps = 200
    trial = calibration.model_copy(update={"name": "calibration"})
    seconds = _trained(folder / "calibration", trial, steps)
    steps = max(1, round(steps * ideal_s / seconds))
    study = Study.model_validate(
        calibration.model_dump(mode="json")
        | {
            "name": "twelve",
            "model": _with_steps(trial, steps),
            "search": {"parameters": [{"name": "seed", "values": list(range(12))}]},
        }
    )
    file = folder / "twelve.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    store = folder / f"twelve-{time.time_ns():x}"
    ran = _run(["run", str(file), "--store", str(store)], folder / "twelve.log")
    records = [json.loads(path.read_text()) for path in store.glob("stages/*/*/provenance.json")]
    start = min(attempt["started"] for record in records for attempt in record["attempts"]) - ran.began
    beyond = ran.seconds - start
    imports = sum(record["preparation_s"] for record in records)
    busy = sum(record["wall_time_s"] for record in records) + imports
    print(
        f"12 trials of {steps} steps under Ray: {ran.seconds:.1f} s, of it {start:.1f} s start and {beyond:.1f} s "
        f"beyond; {len(records)} stages, {busy:.1f} s in all (of it {imports:.1f} s imports), {busy / 2:.1f} s on two "
        f"cores: overhead beyond the start {100 * (2 * beyond / busy - 1):.1f} %, "
        f"{100 * (2 * beyond / (busy - imports) - 1):.1f} % where imports are not counted as work"
    )


_SPIN = (
    "model.kind=token",
    "model.hidden_size=128",
    "model.intermediate_size=256",
    "samples.num_prompts=0",
    "evaluation.max_windows=8",
)


def _with_steps(study: Study, steps: int) -> dict[str, Any]:
    model = study.model.model_dump(mode="json")
    return model | {"training": model["training"] | {"num_steps": steps, "num_flops": None}}


def _trained(folder: Path, study: Study, steps: int) -> float:
    """Seconds that a training of ``steps`` takes in a process with one thread."""
    short = Study.model_validate(study.model_dump(mode="json") | {"model": _with_steps(study, steps)})
    file = folder / "calibration.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(short.model_dump(mode="json"), sort_keys=False))
    store = folder / f"runs-{time.time_ns():x}"
    _run(["run", str(file), "--store", str(store), "--local"], folder / "calibration.log")
    (record,) = store.glob("stages/language_model/*/provenance.json")
    return float(json.loads(record.read_text())["wall_time_s"])


def _grid(num_trials: int) -> Study:
    """``smoke`` at several learning rates: as many trials as asked for, half of them token models."""
    rates = [1e-3 * (1 + number / num_trials) for number in range(num_trials // 2)]
    study = resolve_study("smoke").model_dump(mode="json")
    study["search"]["parameters"].append({"name": "model.training.learning_rate", "values": rates})
    return Study.model_validate(study | {"name": f"grid-{num_trials}"})


def _real_run(folder: Path) -> Store:
    store = Store(folder / "smoke")
    _run(
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


def _run(arguments: list[str], log: Path) -> Ran:
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
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


if __name__ == "__main__":
    main()
