"""A study whose every process is killed at random moments, against the same study left alone.

    python -m bench.survival [STUDY] [KEY=VALUE ...] [--kills 5] [--seed 0] [--folder DIR]

Claim: whatever is killed whenever, the same command ends in the same leaderboard and the same weights, and what it
costs is the work since the last checkpoints and the start of Ray. ``--folder`` keeps both stores; a finished
undisturbed one found there is not computed again.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines.store.store import Store
from tests.faults.small_study import COMMAND, kill_with_children, left_behind, outcome_in

EARLIEST_S, LATEST_S = 5.0, 110.0
"""A kill comes so long after the command was given: from the start of Ray to the evaluation of the default study."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="k-ablation")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latest", type=float, default=LATEST_S, help="seconds after which a kill comes at the latest")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="survival-"))
    study = [options.study, *options.settings]

    alone = _run(study, folder / "undisturbed")
    print(f"undisturbed: {alone:.0f} s", flush=True)
    chance = random.Random(options.seed)
    spent = 0.0
    for number in range(1, options.kills + 1):
        wait = chance.uniform(EARLIEST_S, options.latest)
        killed = _run_and_kill(study, folder / "killed", wait)
        spent += wait
        print(f"kill {number} after {wait:.0f} s: {killed} processes; {_state(folder / 'killed')}", flush=True)
    last = _run(study, folder / "killed")
    print(f"left alone at last: {last:.0f} s, in all {spent + last:.0f} s", flush=True)

    same = outcome_in(Store(folder / "undisturbed")) == outcome_in(Store(folder / "killed"))
    left = left_behind(Store(folder / "killed"))
    print(f"leaderboard and weights equal: {same}; left behind: {left or 'nothing'}")
    sys.exit(0 if same and not left else 1)


def _run(study: list[str], store: Path) -> float:
    """Seconds that the command takes."""
    start = time.perf_counter()
    subprocess.run([*COMMAND, "run", *study, "--store", str(store)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _run_and_kill(study: list[str], store: Path, wait: float) -> int:
    """Kill the driver and all it started with SIGKILL after ``wait`` seconds; how many processes that were."""
    with (store.parent / "killed.log").open("ab") as log:
        driver = subprocess.Popen([*COMMAND, "run", *study, "--store", str(store)], stdout=log, stderr=log)
    time.sleep(wait)
    if driver.poll() is not None:
        raise SystemExit(f"the study ended (exit code {driver.returncode}) before it was killed: lower --latest")
    return kill_with_children(driver)


def _state(store: Path) -> str:
    done = len(list((store / "stages").glob("*/*")))
    under_way = len(list((store / "work").glob("*")))
    return f"{done} stages finished, {under_way} under way"


if __name__ == "__main__":
    main()
