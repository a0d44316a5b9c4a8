"""A small study to be disturbed: how to run it, how to wait for a moment in its life, and what must not change by it.

Used by these tests and by the benchmarks ``bench.recovery`` and ``bench.survival``.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from calm_bench.fingerprint import file_digest
from pipelines.store.integrity import verify_folder
from pipelines.store.store import Store

COMMAND = (sys.executable, "-c", "from pipelines.app.entry import main; main()")
TRAINING = {
    "batch_size": 4,
    "sequence_length": 64,
    "warmup_steps": 5,
    "log_every": 5,
    "validate_every": 20,
    "validation_batches": 1,
    "checkpoint_every": 10,
}
SIZE = {"hidden_size": 32, "intermediate_size": 32}
STUDY: dict[str, Any] = {
    "name": "faults",
    "corpus": {"source": "markov", "markov": {"num_documents": 400, "document_length": 200}},
    "autoencoder": {"latent_size": 8, **SIZE, "training": TRAINING | {"num_steps": 80}},
    "model": {
        **SIZE,
        "num_layers": 1,
        "num_attention_heads": 2,
        "head": {"num_samples": 4, "num_targets": 16, "noise_size": 8, "num_blocks": 1},
        "training": TRAINING | {"num_steps": 150},
    },
    "evaluation": {"context_length": 64, "first_position": 8, "num_samples": 4},
    "samples": {"num_prompts": 0},
    "search": {
        "parameters": [{"name": "model", "choices": {"token": {"model.kind": "token"}, "K=2": {"model.chunk_size": 2}}}]
    },
    "tracking": {"enabled": False},
}
VARYING = {"wall_time_s", "total_wall_time_s", "tokens_per_second", "generated_tokens_per_second", "model_folder"}
"""Columns that are times, or say where the store is."""


@dataclass(frozen=True)
class Outcome:
    """All that must not depend on what happened on the way."""

    leaderboard: str
    """CSV without the columns in ``VARYING``."""
    weights: Mapping[str, str]
    """SHA-256 of every trained model by stage."""


def comparable(text: str) -> str:
    """The CSV of a leaderboard without what may differ between two runs."""
    rows = list(csv.DictReader(io.StringIO(text)))
    kept = [name for name in rows[0] if name not in VARYING]
    out = io.StringIO()
    writer = csv.DictWriter(out, kept, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def weights(store: Store) -> dict[str, str]:
    files = sorted((store.root / "stages").glob("*/*/model/model.safetensors"))
    return {f"{path.parts[-4]}-{path.parts[-3]}": file_digest(path) for path in files}


def written_leaderboard(store: Store) -> str:
    (path,) = (store.root / "studies").glob("*/leaderboard.csv")
    return comparable(path.read_text())


def outcome_in(store: Store) -> Outcome:
    """What a finished ``calm-bench run`` of the store's only study left there."""
    return Outcome(written_leaderboard(store), weights(store))


def start_run(study: Path | str, store: Store, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    """``calm-bench run`` in ``folder``, in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [*COMMAND, "run", str(study), "--store", str(store.root), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def kill_with_children(process: subprocess.Popen[Any]) -> int:
    """Kill a process and all that it started with SIGKILL; how many those were."""
    found = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in found:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    return len(found)


def left_behind(store: Store) -> list[str]:
    """Leases, stop files, half-written folders and files, damaged stages: what a study must not leave in its store."""
    root = store.root
    found = [path for path in (root / "leases").iterdir() if path.name != ".guard"]
    found += [path for place in ("work", "stop", "trash") for path in (root / place).glob("*")]
    found += [folder for folder in (root / "stages").glob("*/*") if verify_folder(folder)]
    found += [path for path in root.rglob(".*") if path.name not in (".guard", ".optuna.journal.guard")]
    return sorted({str(path.relative_to(root)) for path in found})


def wait_for(
    condition: Callable[[], Any], what: str, timeout_s: float = 180.0, of: subprocess.Popen[str] | None = None
) -> Any:
    """The first true value of ``condition``, looked at every hundredth of a second while the process ``of`` lives."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if found := condition():
                return found
        except (FileNotFoundError, psutil.NoSuchProcess):
            pass
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        assert of is None or of.poll() is None, of.communicate()[0] if of is not None else ""
        time.sleep(0.01)


def begun(store: Store, kind: str) -> Path | None:
    """The work folder of a stage of ``kind`` that has something to lose: a checkpoint, or lines of progress."""
    for folder in (store.root / "work").glob(f"{kind}-*"):
        if list(folder.glob("checkpoints/*.sha256")) or (kind == "evaluation" and (folder / "metrics.jsonl").exists()):
            return folder
    return None


def worker_of(store: Store, folder: Path) -> int:
    """The process that holds the lease of the stage in the work folder ``folder``."""
    lease = json.loads((store.root / "leases" / f"{folder.name}.json").read_text())
    return int(lease["pid"])


def flip_bit(path: Path, place: int) -> None:
    """Change one bit of the byte at ``place``."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
