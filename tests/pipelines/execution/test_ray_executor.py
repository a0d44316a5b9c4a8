"""Ray is started for real, once per test: a private instance is what the executor manages."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from calm_bench.devices import available_cpus
from pipelines.execution import ray_instance
from pipelines.execution.choose_executor import make_executor
from pipelines.execution.executor import ExecutorError
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_environment import ONE_HOST
from pipelines.execution.ray_executor import RayExecutor
from pipelines.execution.run_stage import StageError
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.stage import Interrupted, Stage

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

        # A dead worker is told as something that may pass; its lease is free at once, and its work is continued.
        with pytest.raises(StageError, match="mortal: its Ray worker was lost") as caught:
            killed.result()
        assert caught.value.cause == "transient"
        assert not store.is_claimed(toy("mortal"))
        assert executor.submit(toy("mortal")).result() == {"value": 2.0}

        greedy = executor.submit(toy("greedy"))
        with pytest.raises(StageError, match="greedy: out of memory") as caught:
            greedy.result()
        assert caught.value.cause == "memory"

        # One stage is asked to end, the others go on.
        other = executor.submit(toy("patient", seed=1))
        while not store.is_claimed(toy("patient", seed=1)):
            time.sleep(0.01)
        executor.stop_stage(toy("patient", seed=1))
        with pytest.raises(Interrupted):
            other.result()
        assert executor.submit(toy("patient", seed=1)).result() == {"value": 1.0}

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


@pytest.mark.slow
def test_a_process_that_had_a_gpu_is_not_used_again(store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stay on the GPU that it had first, whichever Ray shows it next. Ray only counts the one it has here."""
    init = ray_instance._init

    def with_a_gpu(execution: Execution, address: str, options: dict[str, Any]) -> str | None:
        return init(execution, address, {**options, "num_gpus": 1})

    monkeypatch.setattr(ray_instance, "_init", with_a_gpu)
    executor = RayExecutor(store, Execution(cpus_per_stage=0.5, gpus_per_stage=1, max_parallel=1))
    try:
        pids = [executor.submit(toy("draw", seed=seed)).result()["pid"] for seed in range(3)]
    finally:
        executor.close()
    assert len(set(pids)) == 3, pids


def test_ray_is_not_started_for_nothing(store: Store) -> None:
    import ray

    executor = make_executor(Execution(max_parallel=3), store)
    assert isinstance(executor, RayExecutor)
    assert executor.parallelism == 3
    executor.close()
    assert not ray.is_initialized()


def test_no_more_trainings_wait_than_their_workers_could_run(store: Store) -> None:
    one = RayExecutor(store, Execution(cpus_per_stage=0.125)).parallelism
    assert one == 8 * available_cpus()
    assert RayExecutor(store, Execution(cpus_per_stage=0.125, workers=4)).parallelism == one / 4


@pytest.mark.extended
def test_ray_starts_with_the_first_stage_and_ends_with_the_executor(
    store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitting returns at once, and what is withdrawn while Ray starts ends at once."""
    import ray

    before = set(psutil.Process().children(recursive=True))
    environment = _environment()
    may_start, in_time, connect = threading.Event(), list[bool](), ray_instance._connect

    def slow(execution: Execution) -> str | None:
        in_time.append(may_start.wait(120))
        return connect(execution)

    monkeypatch.setattr(ray_instance, "_connect", slow)
    executor = RayExecutor(store, Execution(max_parallel=2))
    others = RayExecutor(store, Execution(max_parallel=1))
    try:
        first, unwanted = executor.submit(toy("text", seed=0)), executor.submit(toy("text", seed=1))
        executor.stop_stage(toy("text", seed=1))
        with pytest.raises(Interrupted):
            unwanted.result(timeout=0)
        may_start.set()
        assert first.result()["pid"] != os.getpid()
        assert in_time == [True]
        assert not store.is_done(toy("text", seed=1))
        assert _environment() == environment
        with pytest.raises(ExecutorError, match=r"already running .*, or with --local \(in Python run\(local=True\)\)"):
            others.submit(toy("text", seed=2)).result()
        # What is advised.
        local = LocalExecutor(store)
        assert local.submit(toy("text", seed=2)).result() == {"pid": os.getpid()}
        local.close()
        others.close()
        assert ray.is_initialized(), "what another executor started is not its to end"
    finally:
        executor.close()
        executor.close()
    assert not ray.is_initialized()
    _, alive = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=60)
    assert not alive


def test_an_address_where_nobody_listens_is_an_error_that_names_it(
    store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    executor = RayExecutor(store, Execution(address=address))
    monkeypatch.setattr(ray_instance, "LISTENER_S", 1.0)
    with pytest.raises(ExecutorError, match=f"no Ray cluster answers at {address}: .*refused"):
        executor.submit(toy("text")).result(timeout=120)
    monkeypatch.undo()
    # A stop meanwhile is heard at once.
    executor = RayExecutor(store, Execution(address=address))
    waiting = executor.submit(toy("text"))
    executor.stop()
    with pytest.raises(Interrupted):
        waiting.result(timeout=5)
    executor.close()


SILENT = """
import os, socket, sys
from pipelines.execution import ray_instance
from pipelines.execution.executor import ExecutorError
from pipelines.execution.ray_executor import RayExecutor
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.stage import Stage

ray_instance.CONNECT_S = 8.0
listener = socket.create_server(("127.0.0.1", 0))
executor = RayExecutor(Store(sys.argv[1]), Execution(address=f"127.0.0.1:{listener.getsockname()[1]}"))
try:
    executor.submit(Stage("corpus", 1, {})).result(timeout=300)
except ExecutorError as error:
    print(error, flush=True)
executor.close()
os._exit(0)
"""


@pytest.mark.slow
def test_who_listens_and_does_not_answer_is_no_cluster(tmp_path: Path) -> None:
    """In a process of its own, since nothing can end Ray's attempts."""
    done = subprocess.run([sys.executable, "-c", SILENT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "does not answer: something listens there" in done.stdout, done.stderr


def test_what_a_loopback_address_means_to_ray_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_instance, "LISTENER_S", 0.0)
    with pytest.raises(
        ExecutorError, match=r"at 127\.0\.0\.2:1 \(127\.0\.0\.1:1 means this machine's address to Ray\)"
    ):
        ray_instance._wait_for_listener("127.0.0.1:1", own_address="127.0.0.2")


@pytest.mark.slow
def test_a_private_ray_is_refused_where_it_would_listen_on_the_network() -> None:
    """Ray reads the variable when it is imported: where a process did that before, ours comes too late. Set before, as
    the message says, Ray starts."""
    script = (
        "import ray\n"
        "from pipelines.execution.ray_instance import _connect\n"
        "from pipelines.study.config import Execution\n"
        "print(ray.util.get_node_ip_address())\n"
        "_connect(Execution())"
    )
    environment = {name: value for name, value in os.environ.items() if name != ONE_HOST}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    if done.stdout.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    assert done.returncode != 0
    advised = re.search(r"set the environment variable (\w+)=(\d) before that", done.stderr)
    assert advised is not None, done.stderr
    environment |= {advised[1]: advised[2]}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("127.")


@pytest.mark.extended
def test_a_cluster_that_listens_on_loopback_alone_is_found_by_the_variable_that_is_named() -> None:
    """Ray makes this machine's address of a loopback one, unless it was told before it is imported."""
    script = (
        "import sys, ray\n"
        "from pipelines.execution.ray_instance import _wait_for_listener\n"
        "_wait_for_listener(sys.argv[1], ray.util.get_node_ip_address())"
    )
    environment = {name: value for name, value in os.environ.items() if name != ONE_HOST}

    def look(**variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, f"127.0.0.1:{listener.getsockname()[1]}"]
        return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        refused = look()
        if refused.returncode == 0:
            pytest.skip("this machine has no address but loopback")
        advised = re.search(r"if it listens on 127\.0\.0\.1 only, set (\w+)=(\d) for the study too", refused.stderr)
        assert advised is not None, refused.stderr
        assert look(**{advised[1]: advised[2]}).returncode == 0


@pytest.mark.extended
def test_stages_that_do_not_fit_run_one_after_the_other_or_not_at_all(store: Store, toy: Toy) -> None:
    """Memory is declared in Ray's terms, so Ray can be asked what is left of it."""
    import ray

    gib = psutil.virtual_memory().total / 2**30
    executor = RayExecutor(store, Execution(memory_per_stage=gib * 0.55, cpus_per_stage=0.1, max_parallel=4))
    try:
        running = executor.submit(toy("patient", seed=1))
        while not store.is_claimed(toy("patient", seed=1)):
            time.sleep(0.01)
        deadline = time.monotonic() + 120
        while ray.available_resources()["memory"] > ray.cluster_resources()["memory"] - gib * 0.49 * 2**30:
            assert time.monotonic() < deadline, "the stage's memory is not taken"
            time.sleep(0.05)
        waiting = executor.submit(toy("patient", seed=2))
        time.sleep(1.0)
        assert not store.is_claimed(toy("patient", seed=2)), "a second one does not fit beside the first"
        executor.stop()
        for future in (running, waiting):
            with pytest.raises(Interrupted):
                future.result()
    finally:
        executor.close()
    executor = RayExecutor(store, Execution(memory_per_stage=10 * gib))
    try:
        with pytest.raises(ExecutorError, match=r"GiB of memory and Ray found .*lower execution\.memory_per_stage"):
            executor.submit(toy("draw")).result()
    finally:
        executor.close()


@pytest.mark.parametrize("kind", ["draw", "text"])
def test_a_gpu_must_be_asked_for(store: Store, toy: Toy, kind: str) -> None:
    executor = RayExecutor(store, Execution(device="cuda"))
    with pytest.raises(ExecutorError, match=r"execution\.gpus_per_stage is 0: set it to 1"):
        executor.submit(toy(kind))
