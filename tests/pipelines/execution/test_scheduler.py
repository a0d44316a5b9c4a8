"""In which order ready stages are taken up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from pipelines.execution import scheduler as of_scheduler
from pipelines.execution.events import StageFailed, StageFinished, StageStarted
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
    listener = recorder()
    scheduler = Scheduler(store, executor, listener, retries=0)
    for stage in stages:
        scheduler.add(StageGraph((stage,)))
    lease = store.claim(stages[claimed])
    assert lease is not None
    with lease:
        scheduler.submit()
        # A second each, at most.
        for _ in range(120):
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
    ended = {event.stage: event.elsewhere for event in listener.events if isinstance(event, StageFinished)}
    assert ended == {stages[claimed]: True, stages[1 - claimed]: False}


def test_a_model_is_scored_before_the_next_is_trained(store: Store, toy: Toy, recorder: Any) -> None:
    """One place, three trials of an autoencoder, a model and its score, one of them without autoencoder."""
    autoencoders = [toy("draw", seed=seed) for seed in range(2)]
    models = [*(toy("second", seed=1, first=each) for each in autoencoders), toy("second", seed=2)]
    scores = [toy("third", model=model) for model in models]
    listener, executor = recorder(), LocalExecutor(store)
    scheduler = Scheduler(store, executor, listener)
    for stages in zip([[autoencoders[0]], [autoencoders[1]], []], models, scores, strict=True):
        scheduler.add(StageGraph((*stages[0], *stages[1:])))
    while len(scheduler.results) < len([*autoencoders, *models, *scores]):
        scheduler.submit()
        scheduler.wait()
    executor.close()
    order = [event.stage for event in listener.events if isinstance(event, StageStarted)]
    for model, score in zip(models, scores, strict=True):
        assert order.index(score) == order.index(model) + 1, [stage.kind for stage in order]


class Silent:
    """An executor of which nothing more is heard."""

    parallelism = 1

    def submit(self, stage: Stage) -> Future[dict[str, Any]]:
        return Future()

    def unschedulable_reason(self, stage: Stage) -> str | None:
        return None

    def stop(self) -> None:
        pass

    def stop_stage(self, stage: Stage) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_stop_waits_for_who_works_and_for_nobody_else(
    store: Store, toy: Toy, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_scheduler, "POLL_S", 0.02)
    monkeypatch.setattr(of_scheduler, "GIVE_UP_S", 0.2)
    stage, listener = toy("draw", seed=0), recorder()
    scheduler = Scheduler(store, Silent(), listener)
    scheduler.add(StageGraph((stage,)))
    scheduler.submit()
    lease = store.claim(stage)
    assert lease is not None
    with lease:
        scheduler.stop()
        for _ in range(30):
            scheduler.wait()
        assert not scheduler.is_idle, "a worker holds it, and may be saving"
    for _ in range(30):
        scheduler.wait()
    assert scheduler.is_idle
    assert scheduler.errors == {}
    assert not [event for event in listener.events if isinstance(event, StageFailed)]
