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
import time
from pathlib import Path
from typing import Any

import yaml

from bench.filled_store import fill, grid, kept_folder, real_run, run
from pipelines.store.store import Store
from pipelines.study.catalogue import resolve_study
from pipelines.study.config import Study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cached", "memory", "overhead"))
    parser.add_argument("--trials", type=int, help="of the cached study; 200 for cached, 2000 for memory")
    parser.add_argument("--no-mlflow", action="store_true", help="without MLflow")
    parser.add_argument("--keep", type=Path, help="keep the store in this folder, and use what it holds")
    parser.add_argument("--ideal", type=float, default=20.0, help="overhead: seconds of one training")
    arguments = parser.parse_args()
    with kept_folder(arguments.keep) as folder:
        if arguments.what == "overhead":
            overhead(folder, arguments.ideal)
        else:
            trials = arguments.trials or (200 if arguments.what == "cached" else 2000)
            cached(folder, trials, not arguments.no_mlflow)


def cached(folder: Path, num_trials: int, with_mlflow: bool) -> None:
    """Seconds to the leaderboard and peak memory of a study that has everything; the first run fills MLflow."""
    study = grid(num_trials)
    store = Store(folder / "runs")
    stages = fill(store, study, real_run(folder))
    file = folder / f"grid-{num_trials}.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    settings = ["--local"] if with_mlflow else ["--local", "tracking.enabled=false"]
    for name in ("first run", "again"):
        ran = run(["run", str(file), "--store", str(store.root), *settings], folder / f"{name}.log")
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
    ran = run(["run", str(file), "--store", str(store)], folder / "twelve.log")
    records = [json.loads(path.read_text()) for path in store.glob("stages/*/*/provenance.json")]
    spans = sorted(_span(record) for record in records)
    start = spans[0][0] - ran.began
    beyond = ran.seconds - start
    first = min(_span(record)[0] for record in records if record.get("flops"))
    last = max(end for _, end in spans)
    serial, idle, ending = _parts(spans, first, last, ran.began + ran.seconds)
    imports = sum(record["preparation_s"] for record in records)
    busy = sum(record["wall_time_s"] for record in records) + imports
    print(
        f"12 trials of {steps} steps under Ray: {ran.seconds:.1f} s, of it {start:.1f} s start and {beyond:.1f} s "
        f"beyond; {len(records)} stages, {busy:.1f} s in all (of it {imports:.1f} s imports), {busy / 2:.1f} s on two "
        f"cores: overhead beyond the start {100 * (2 * beyond / busy - 1):.1f} %, "
        f"{100 * (2 * beyond / (busy - imports) - 1):.1f} % where imports are not counted as work"
    )
    print(
        f"of the time beyond the start: {serial:.1f} s of text stages, one after the other; {idle:.1f} s in which a "
        f"core had no stage ({1000 * 2 * idle / len(records):.0f} ms a stage); {ending:.1f} s after the last stage: "
        "leaderboard, pictures, report, and the end of Ray"
    )


def _span(record: dict[str, Any]) -> tuple[float, float]:
    """When a stage was taken by its worker, and when it was done, in seconds since the epoch."""
    (attempt,) = record["attempts"]
    # An attempt is written down when what it needs has been imported.
    return attempt["started"] - record["preparation_s"], attempt["started"] + record["wall_time_s"]


def _parts(spans: list[tuple[float, float]], first: float, last: float, end: float) -> tuple[float, float, float]:
    """Seconds before the first training, seconds of two cores without a stage until the last one ends, seconds after.

    Args:
        spans: of all stages.
        first: when the first training began.
        last: when the last stage ended.
        end: of the command.
    """
    busy = sum(max(0.0, stop - max(start, first)) for start, stop in spans)
    return first - spans[0][0], (last - first) - busy / 2, end - last


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
    run(["run", str(file), "--store", str(store), "--local"], folder / "calibration.log")
    (record,) = store.glob("stages/language_model/*/provenance.json")
    return float(json.loads(record.read_text())["wall_time_s"])


if __name__ == "__main__":
    main()
