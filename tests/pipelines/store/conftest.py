"""Stores whose home is an object store: in memory, in files, and behind a real S3 server on loopback."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.execution.run_stage import run_stage
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind
from tests.object_stores import remote_store, s3, s3_server

__all__ = ["s3", "s3_server"]


def run_count(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Leaves a model, and reads what it builds on."""
    below = [json.loads((path / "model" / "weights.bin").read_text()) for path in inputs.values()]
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights.bin").write_text(json.dumps(stage.config["seed"] + sum(below)))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "total_steps": 1, "metrics": {"loss": 0.5}}) + "\n")
    return {"value": stage.config["seed"] + sum(below)}


def run_steps(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Ten steps with a checkpoint after each; where it began is part of what it leaves."""
    checkpoint = folder / "checkpoints" / "step"
    checkpoint.parent.mkdir(exist_ok=True)
    first = step = int(checkpoint.read_text()) if checkpoint.exists() else 0
    while step < 10:
        if context.stop():
            raise Interrupted("stopped")
        step += 1
        temporary = folder / "checkpoints" / ".step.00000000"
        temporary.write_text(str(step))
        temporary.replace(checkpoint)
        if step == stage.config.get("stop_at") and first == 0:
            raise Interrupted("stopped")
    return {"value": 1.0, "first": first}


@pytest.fixture(autouse=True)
def _kinds() -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for name, run in (("count", run_count), ("above", run_count), ("steps", run_steps)):
        STAGE_KINDS.register(name, StageKind(name, run, uses_torch=False))


@pytest.fixture
def stage() -> Callable[..., Stage]:
    """Makes a stage: ``stage("count", seed=1)``."""

    def make(kind: str = "count", inputs: Mapping[str, Stage] | None = None, **config: Any) -> Stage:
        return Stage(kind, 1, {"seed": 0, **config}, inputs or {})

    return make


@pytest.fixture(params=["memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty home, in memory unless a test says otherwise."""
    match request.param:
        case "memory":
            return f"memory://{uuid.uuid4().hex}"
        case "file":
            return f"file://{tmp_path / 'home'}"
    address: str = request.getfixturevalue("s3")
    return address


@pytest.fixture
def host(url: str, tmp_path: Path) -> Callable[..., Store]:
    """Stores at ``url`` as different hosts have them: ``host("a")`` works in a folder of its own."""

    def make(name: str = "a", **settings: float) -> Store:
        return remote_store(ObjectStore(url), tmp_path / f"host-{name}", **settings)

    return make


def do(store: Store, stage: Stage) -> dict[str, Any]:
    """The stage's result, with what it builds on made first."""
    for source in stage.inputs.values():
        do(store, source)
    return run_stage(store, stage, STAGE_KINDS.get(stage.kind), StageContext())


@pytest.fixture(name="do")
def _do() -> Callable[..., dict[str, Any]]:
    return do
