"""Small stages with a known course, registered as any plug-in would be, and a study that trains in seconds."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.execution.events import Event
from pipelines.execution.local_executor import LocalExecutor
from pipelines.search.drive import run_study
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind
from pipelines.study.trial import TrialOutcome


def run_draw(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Matrix products whose rounding depends on the number of threads, and where it ran."""
    import torch

    torch_generator = torch.Generator().manual_seed(stage.config["seed"])
    matrix = torch.randn(300, 300, generator=torch_generator)
    value = sum(json.loads((path / "result.json").read_text())["value"] for path in inputs.values())
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(3):
            matrix = torch.tanh(matrix @ matrix)
            file.write(
                json.dumps({"step": step + 1, "total_steps": 3, "metrics": {"mean": float(matrix.mean())}}) + "\n"
            )
    return {"value": value + float(matrix.sum()), "threads": torch.get_num_threads(), "pid": os.getpid()}


def run_text(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Where it ran."""
    return {"pid": os.getpid()}


def run_fail(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    raise ArithmeticError("it does not add up")


def run_patient(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Goes on until it is stopped; the attempt that finds a checkpoint finishes."""
    import time

    checkpoint = folder / "checkpoints" / "state"
    if checkpoint.exists():
        return {"value": 1.0}
    while not context.stop():
        time.sleep(0.01)
    checkpoint.parent.mkdir()
    checkpoint.touch()
    raise Interrupted("stopped with a checkpoint")


def run_mortal(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Kills its own process, as an out-of-memory killer would; the attempt that finds a checkpoint finishes."""
    checkpoint = folder / "checkpoints" / "state"
    if not checkpoint.exists():
        checkpoint.parent.mkdir()
        checkpoint.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": 2.0}


def run_unlucky(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Meets a full disk as often as its seed says, and goes on from what it had."""
    tries = folder / "checkpoints" / "tries"
    tries.parent.mkdir(exist_ok=True)
    done = len(tries.read_text()) if tries.exists() else 0
    if done < stage.config["seed"]:
        tries.write_text("x" * (done + 1))
        raise OSError(errno.ENOSPC, "No space left on device")
    return {"value": float(done)}


def run_greedy(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Asks for more memory than any machine has."""
    import torch

    (folder / "tries").write_text("x" * (1 + len(list(folder.glob("tries")))))
    torch.empty(2**60, dtype=torch.uint8)
    return {}


KINDS = [
    StageKind("draw", run_draw),
    StageKind("second", run_draw),
    StageKind("third", run_draw),
    StageKind("fail", run_fail),
    StageKind("text", run_text, uses_torch=False),
    StageKind("patient", run_patient, uses_torch=False),
    StageKind("mortal", run_mortal, uses_torch=False),
    StageKind("unlucky", run_unlucky, uses_torch=False),
    StageKind("greedy", run_greedy),
]


@pytest.fixture(autouse=True)
def _toy_kinds() -> None:
    from ray import cloudpickle

    # Workers cannot import a test's conftest by name.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for kind in KINDS:
        STAGE_KINDS.register(kind.name, kind)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def toy() -> Callable[..., Stage]:
    """Makes a stage of a toy kind: ``toy("draw", seed=1, first=other_stage)``."""

    def make(kind: str, seed: int = 0, **inputs: Stage) -> Stage:
        return Stage(kind, 1, {"seed": seed}, inputs)

    return make


class Recorder:
    """A listener that remembers, and may act on what it hears."""

    def __init__(self, act: Callable[[Event], None] = lambda event: None) -> None:
        self.events: list[Event] = []
        self._act = act

    def handle(self, event: Event) -> None:
        self.events.append(event)
        self._act(event)

    def kinds_of(self, event_type: type) -> list[str]:
        """Kinds of the stages of all events of one type, in order."""
        return [event.stage.kind for event in self.events if isinstance(event, event_type)]


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def tiny_study() -> Callable[..., Study]:
    """A token model and two chunk models of a few steps on a small synthetic language; keywords replace sections."""
    training = {
        "num_steps": 4,
        "batch_size": 4,
        "sequence_length": 32,
        "warmup_steps": 1,
        "log_every": 2,
        "validation_batches": 1,
    }

    def make(**sections: Any) -> Study:
        choices = {
            "token": {"model.kind": "token"},
            "K=1": {"model.chunk_size": 1},
            "K=2": {"model.chunk_size": 2},
        }
        head = {"num_samples": 2, "num_targets": 4, "noise_size": 4, "num_blocks": 1}
        size = {"hidden_size": 16, "intermediate_size": 16}
        description = {
            "name": "tiny",
            "corpus": {"source": "markov", "markov": {"num_documents": 40, "document_length": 100}},
            "autoencoder": {"latent_size": 8, **size, "training": training},
            "model": {**size, "num_layers": 1, "num_attention_heads": 2, "head": head, "training": training},
            "evaluation": {"context_length": 32, "first_position": 8, "num_samples": 2},
            "samples": {"num_prompts": 0},
            "search": {"parameters": [{"name": "model", "choices": choices}]},
        }
        return Study.model_validate(description | sections)

    return make


@pytest.fixture
def run(store: Store) -> Callable[..., list[TrialOutcome]]:
    """Run a study in this process."""

    def run(study: Study, listener: Any = None, **options: Any) -> list[TrialOutcome]:
        executor = LocalExecutor(store, "cpu")
        try:
            return run_study(study, store, executor, listener, **options)
        finally:
            executor.close()

    return run
