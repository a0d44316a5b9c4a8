"""Corpus and tokens killed at random moments, whole, and run again: the shards are those of a run that nobody disturbs.

    python -m bench.killed_text [--megabytes 2000] [--kills 5] [--workers 2] [--tokenizer bytes] [--seed 0]

Runs both stages once undisturbed, on Ray with so many workers. Then again in another store: the driver and all of its
processes are killed at a random moment after its first new part, and the same is started anew, until it has been killed
so often; the last time it may end. Prints what each attempt found done, and fails where a digest differs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from bench.measure import machine
from bench.text import write_text
from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.corpora import SPLITS, read_documents, write_corpus
from pipelines.execution.ray_executor import RayExecutor
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.graph import stages_for

LATEST = 0.04
"""A run is killed at most this part of an undisturbed run's time after its first new part."""
POLL_S = 0.1
ENDS_WITHIN_S = 60.0


def run_stages(source: Path, tokenizer: str, folder: Path, workers: int) -> None:
    """Both stages, from whatever an earlier attempt left in the store at ``folder``; prints their digests."""
    store = Store(folder)
    graph = stages_for(Experiment(corpus=Corpus(source=str(source)), tokens=Tokens(tokenizer=tokenizer)))
    executor = RayExecutor(store, Execution(max_parallel=workers))
    try:
        for kind in ("corpus", "tokens"):
            executor.submit(graph[kind]).result()
    finally:
        executor.close()
    manifest = json.loads((store.folder(graph["tokens"]) / "manifest.json").read_text())
    found = {split: manifest["splits"][split]["digest"] for split in SPLITS}
    print(json.dumps(found | {"corpus": store.result(graph["corpus"])["digest"]}))


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a process and everything that it started."""
    with suppress(psutil.NoSuchProcess):
        everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in everyone:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everyone, ENDS_WITHIN_S)
    process.communicate()


def start(source: Path, tokenizer: str, folder: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.killed_text", "--run", str(source), str(folder)]
    command += ["--tokenizer", tokenizer, "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> dict[str, str]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run failed with exit code {process.returncode}")
    found: dict[str, str] = json.loads(out.splitlines()[-1])
    return found


def done(folder: Path) -> int:
    """Parts that are published in stages under way, and finished stages, which count for more than all of theirs."""
    parts = sum(1 for _ in folder.glob("work/*/parts/*/part.json"))
    return parts + 10**6 * sum(1 for _ in folder.glob("stages/*/*/result.json"))


def disturb(source: Path, asked: argparse.Namespace, folder: Path, seconds: float) -> tuple[dict[str, str], int]:
    """The digests of a run that was killed, and how often it was."""
    generator = random.Random(asked.seed)
    for kills in range(asked.kills):
        process = start(source, asked.tokenizer, folder, asked.workers)
        before = done(folder)
        while process.poll() is None and done(folder) <= before:
            time.sleep(POLL_S)
        wait_s = generator.uniform(0, LATEST) * seconds
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            kill_all(process)
        else:
            return ended(process), kills
        print(
            f"killed {wait_s:.1f} s after its first new part, {done(folder) // 10**6} stages and then "
            f"{done(folder) % 10**6} parts are done",
            flush=True,
        )
    return ended(start(source, asked.tokenizer, folder, asked.workers)), asked.kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokenizer", default="bytes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", nargs=2, type=Path, metavar=("SOURCE", "STORE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        source, store = asked.run
        run_stages(source, asked.tokenizer, store, asked.workers)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(Corpus(), folder / "python")
        texts = [text for split in SPLITS for text in read_documents(folder / "python", split)]
        size = write_text(folder / "text.jsonl", texts, asked.megabytes)
        began = time.perf_counter()
        expected = ended(start(folder / "text.jsonl", asked.tokenizer, folder / "undisturbed", asked.workers))
        seconds = time.perf_counter() - began
        found, kills = disturb(folder / "text.jsonl", asked, folder / "disturbed", seconds)
        print(f"{size:.0f} MB, {asked.workers} workers, {seconds:.0f} s undisturbed; {machine()}")
        print(f"killed {kills} times, {'equal' if found == expected else 'OTHER'} shards: {found}")
        if found != expected:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
