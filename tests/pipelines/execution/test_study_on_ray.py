from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.execution.executor import Executor
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_executor import RayExecutor
from pipelines.search.drive import run_study
from pipelines.store.store import Store
from pipelines.study.config import Execution, Study


def _weights(store: Store) -> dict[str, str]:
    """Hash of every trained model, by stage."""
    files = sorted((store.root / "stages").rglob("model.safetensors"))
    return {path.parts[-3]: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.long
@pytest.mark.slow
def test_ray_and_local_give_the_same_bits(tmp_path: Path, tiny_study: Callable[..., Study]) -> None:
    """In the suite: tests/faults compares the weights of studies on Ray with those of this process alone."""
    study = tiny_study()
    stores = Store(tmp_path / "local"), Store(tmp_path / "ray")
    executors: tuple[Executor, ...] = LocalExecutor(stores[0]), RayExecutor(stores[1], Execution())
    outcomes = []
    for store, executor in zip(stores, executors, strict=True):
        try:
            outcomes.append(run_study(study, store, executor))
        finally:
            executor.close()
    local, on_ray = outcomes
    assert len(_weights(stores[0])) == 5
    assert _weights(stores[0]) == _weights(stores[1])
    assert [outcome.values for outcome in local] == [outcome.values for outcome in on_ray]
    for ours, theirs in zip(local, on_ray, strict=True):
        timeless = [
            {key: value for key, value in outcome.results["evaluation"].items() if key != "wall_time_s"}
            for outcome in (ours, theirs)
        ]
        assert timeless[0] == timeless[1]
