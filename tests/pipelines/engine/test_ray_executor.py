"""Ray is started for real, once per test: a private instance is what the executor manages."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from calm_bench.study_config import Execution
from pipelines.executor import ExecutorError, LocalExecutor, make_executor
from pipelines.perform import StageError
from pipelines.ray_executor import RayExecutor
from pipelines.stage import Interrupted, Stage
from pipelines.store import Store

Toy = Callable[..., Stage]


def _environment() -> dict[str, str]:
    """All variables but the one that Ray itself sets in every driver."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONBREAKPOINT"}


@pytest.mark.slow
def test_stages_on_ray(store: Store, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One start of Ray for all of it, since that is what takes the time."""
    handler, environment = signal.getsignal(signal.SIGTERM), _environment()
    executor = RayExecutor(store, Execution(cpus_per_stage=0.5, max_parallel=4))
    try:
        futures = {seed: executor.submit(toy("draw", seed=seed)) for seed in range(3)}
        failed, killed, patient = (executor.submit(toy(kind)) for kind in ("fail", "mortal", "patient"))

        # The same bits as in this process, whose threads are the machine's.
        local = LocalExecutor(Store(tmp_path_factory.mktemp("local")))
        for seed, future in futures.items():
            here, there = local.submit(toy("draw", seed=seed)).result(), future.result()
            assert there["value"] == here["value"]
            assert there["threads"] == here["threads"] == 1
            assert there["pid"] != here["pid"]
        local.close()

        with pytest.raises(StageError, match="fail: ArithmeticError: it does not add up") as caught:
            failed.result()
        assert "run_fail" in caught.value.details

        # A dead worker's lease is taken over at once, and its work continued.
        assert killed.result() == {"value": 2.0}

        while not store.is_claimed(toy("patient")):
            time.sleep(0.01)
        executor.stop()
        with pytest.raises(Interrupted):
            patient.result()
        with pytest.raises(Interrupted):
            executor.submit(toy("draw", seed=9)).result()
        assert signal.getsignal(signal.SIGTERM) == handler
        assert _environment() == environment, "what workers need is not left behind in this process"
    finally:
        executor.close()
    assert not any((store.root / "stop").iterdir())


def test_ray_is_not_started_for_nothing(store: Store) -> None:
    import ray

    executor = make_executor(Execution(max_parallel=3), store)
    assert isinstance(executor, RayExecutor)
    assert executor.parallelism == 3
    executor.close()
    assert not ray.is_initialized()


def test_a_gpu_must_be_asked_for(store: Store, toy: Toy) -> None:
    executor = RayExecutor(store, Execution(device="cuda"))
    with pytest.raises(ExecutorError, match=r"execution\.gpus_per_stage is 0: set it to 1"):
        executor.submit(toy("draw"))
