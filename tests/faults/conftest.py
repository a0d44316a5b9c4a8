"""One small study, its undisturbed leaderboard, and how to wait for a moment in its life."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from calm_bench.fingerprint import file_digest
from calm_bench.study_config import Study
from pipelines.engine.executor import Executor, LocalExecutor
from pipelines.leaderboard.entry import entry_from
from pipelines.leaderboard.leaderboard import Leaderboard
from pipelines.store.intact import find_damage
from pipelines.store.store import Store
from pipelines.sweep.study import run_study

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
VARYING = {"wall_time_s", "total_wall_time_s", "tokens_per_second", "model_folder"}
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


def finish(study: Study, store: Store, executor: Executor | None = None, listener: Any = None) -> Outcome:
    """Run the study to its end in this process, by ``executor`` or without Ray."""
    executor = executor or LocalExecutor(store, "cpu")
    try:
        outcomes = run_study(study, store, executor, listener)
    finally:
        executor.close()
    assert {outcome.state for outcome in outcomes} == {"complete"}, [outcome.error for outcome in outcomes]
    board = Leaderboard(entry_from(outcome, study) for outcome in outcomes)
    return Outcome(comparable(board.to_csv()), weights(store))


@pytest.fixture(scope="session")
def study() -> Study:
    return Study.model_validate(STUDY)


@pytest.fixture(scope="session")
def undisturbed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The reference: one run that nothing happened to."""
    outcome = finish(study, Store(tmp_path_factory.mktemp("undisturbed")))
    assert len(outcome.weights) == 3
    return outcome


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that must be clean and whole in the end, whatever happened to it."""
    # Other tests of this process keep a database server, a browser, or multiprocessing's resource tracker to its end.
    others = processes()
    store = Store(tmp_path / "store")
    yield store
    assert_nothing_is_left(store, others)


def assert_nothing_is_left(store: Store, others: Mapping[psutil.Process, str]) -> None:
    """No lease, no stop file, no half-written folder or file; every stage intact; no process but ``others``."""
    root = store.root
    assert [path.name for path in (root / "leases").iterdir()] == [".guard"]
    assert list((root / "work").iterdir()) == []
    for place in ("stop", "trash"):
        assert not list((root / place).glob("*")), place
    for folder in (root / "stages").glob("*/*"):
        assert find_damage(folder) == [], folder
    hidden = {path.name for path in root.rglob(".*")}
    assert hidden <= {".guard", ".optuna.journal.guard"}, hidden
    left: list[str] = []

    def nothing() -> bool:
        left[:] = [line for process, line in processes().items() if process not in others]
        return not left

    try:
        wait_for(nothing, "no process is left")
    except AssertionError as error:
        raise AssertionError(f"{error}; there are {left}") from None


def processes() -> dict[psutil.Process, str]:
    """The living processes that this one started, and theirs, by what they run."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process] = " ".join(process.cmdline()[:4])
    return found


def wait_for(
    condition: Callable[[], Any], what: str, timeout_s: float = 60.0, of: subprocess.Popen[str] | None = None
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


@pytest.fixture
def command(store: Store, study: Study, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``calm-bench run`` on the study in a process group of its own, as a terminal does."""
    file = tmp_path / "faults.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        program = "from pipelines.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, "run", str(file), "--store", str(store.root), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def written_leaderboard(store: Store) -> str:
    (path,) = (store.root / "studies").glob("*/leaderboard.csv")
    return comparable(path.read_text())
