"""What 20, 200 and 2000 trials take of each command: plan, cached run, watch, leaderboard, report, sync to MLflow.

    python -m bench.trials [--trials 20 200 2000] [--keep FOLDER]

All trials are in the store already (:mod:`bench.filled_store`), so what is measured is the project's own work: none of
the columns may grow faster than the number of trials. Seconds of CPU time of the command and all its processes, imports
included, and seconds of wall time in brackets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from bench.filled_store import fill, grid, kept_folder, real_run, run
from pipelines.store.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--keep", type=Path, help="keep the stores in this folder, and use what it holds")
    arguments = parser.parse_args()
    with kept_folder(arguments.keep) as folder:
        smoke = real_run(folder)
        print("| trials | " + " | ".join(_commands("STUDY", "STORE", "NAME")) + " |", flush=True)
        print("| --: |" + " --: |" * len(_commands("", "", "")), flush=True)
        for count in arguments.trials:
            study = grid(count)
            store = Store(folder / f"runs-{count}")
            fill(store, study, smoke)
            file = folder / f"{study.name}.yaml"
            file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
            cells = []
            for name, command in _commands(str(file), str(store.root), study.name).items():
                ran = run(command, folder / f"{name}.log")
                cells.append(f"{ran.cpu:.1f} ({ran.seconds:.1f})")
            print(f"| {count:,} | " + " | ".join(cells) + " |", flush=True)


def _commands(study: str, store: str, name: str) -> dict[str, list[str]]:
    at = ["--store", store]
    return {
        "plan": ["plan", study, *at],
        "cached run": ["run", study, *at, "--local", "tracking.enabled=false"],
        "watch": ["watch", name, *at, "--once"],
        "leaderboard": ["leaderboard", name, *at],
        "report": ["report", name, *at],
        "MLflow sync": ["mlflow", "sync", *at],
        "sync again": ["mlflow", "sync", *at],
    }


if __name__ == "__main__":
    main()
