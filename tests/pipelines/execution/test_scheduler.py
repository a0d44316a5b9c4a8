"""In which order ready stages are taken up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.scheduler import Scheduler
from pipelines.store.store import Store
from pipelines.study.stage import Stage, StageGraph

Toy = Callable[..., Stage]


@pytest.mark.parametrize("claimed", [0, 1])
def test_what_another_driver_is_at_comes_last(store: Store, toy: Toy, recorder: Any, claimed: int) -> None:
    """One place, two ready stages: while another holds one of them, the other is worked on instead of waiting."""
    stages = [toy("draw", seed=0), toy("draw", seed=1)]
    executor = LocalExecutor(Store(store.root))
    scheduler = Scheduler(store, executor, recorder(), retries=0)
    for stage in stages:
        scheduler.add(StageGraph((stage,)))
    lease = store.claim(stages[claimed])
    assert lease is not None
    with lease:
        scheduler.submit()
        for _ in range(20):
            if scheduler.is_idle:
                break
            scheduler.wait()
        assert set(scheduler.results) == {stages[1 - claimed]}
        # Nothing else is left to do: then it waits, and takes over when the other is gone.
        scheduler.submit()
        assert not scheduler.is_idle
    while not scheduler.is_idle:
        scheduler.wait()
    assert set(scheduler.results) == set(stages)
    executor.close()
