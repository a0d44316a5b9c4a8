"""The fault matrix on Ray: killed workers, a killed driver, Ctrl-C in a terminal, a lost node."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipelines.execution.events import Event, StageRetried
from pipelines.execution.ray_executor import RayExecutor
from pipelines.store.store import Store
from pipelines.study.config import Execution, Study
from tests.faults.conftest import finish
from tests.faults.small_study import Outcome, begun, outcome_in, wait_for, worker_of

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.Popen[str]]
KINDS = ("autoencoder", "language_model", "evaluation")


class Retries:
    """Listens for stages that were tried again."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.errors: list[str] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, StageRetried):
            self.kinds.add(event.stage.kind)
            self.errors.append(event.error)


def _kill_one_of_each_kind(store: Store, killed: list[str]) -> None:
    def kill(kind: str) -> bool:
        folder = begun(store, kind)
        if folder is not None:
            os.kill(worker_of(store, folder), signal.SIGKILL)
        return folder is not None

    for kind in KINDS:
        wait_for(functools.partial(kill, kind), f"{kind} is under way")
        killed.append(kind)


@pytest.mark.extended
def test_a_worker_killed_in_every_kind_of_stage(study: Study, store: Store, undisturbed: Outcome) -> None:
    listener, killed = Retries(), list[str]()
    killer = threading.Thread(target=_kill_one_of_each_kind, args=(store, killed))
    killer.start()
    outcome = finish(study, store, RayExecutor(store, Execution(device="cpu")), listener)
    killer.join()
    assert killed == list(KINDS)
    assert listener.kinds == set(KINDS)
    assert outcome == undisturbed


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _is_agent(process: psutil.Process) -> bool:
    """One of Ray's two agents of a node: they tell its control service of their end, and wait a minute for that."""
    with suppress(psutil.NoSuchProcess):
        return "Agent" in " ".join(process.cmdline())
    return False


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.extended), signal.SIGKILL])
def test_a_driver_that_is_told_to_stop_or_killed(
    number: signal.Signals, study: Study, store: Store, command: Command, undisturbed: Outcome
) -> None:
    """SIGINT goes to all processes of the terminal, SIGKILL to the driver alone; what it had started ends with it."""
    driver = command()
    wait_for(lambda: begun(store, "language_model"), "a language model has a checkpoint", of=driver)
    started = psutil.Process(driver.pid).children(recursive=True)
    assert len(started) > 3
    if number == signal.SIGINT:
        os.killpg(driver.pid, number)
    else:
        driver.kill()
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), said
    agents = [process for process in started if _is_agent(process)] if number == signal.SIGKILL else []
    others = [process for process in started if process not in agents]
    assert len(agents) <= 2
    wait_for(lambda: not any(_is_alive(process) for process in others), "no process of Ray is left")
    for process in filter(_is_alive, agents):
        process.kill()
    assert finish(study, store) == undisturbed


@pytest.mark.extended
def test_a_lost_node(store: Store, command: Command, undisturbed: Outcome) -> None:
    """Two nodes of a cluster that the study connects to; the one that trains the language model goes.

    Ray publishes the last lines of the dead node's log to drivers, some twenty of them: one line of ours stands for
    them, and names the folder where they are.
    """
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "_system_config": quick, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
        driver = command(f"execution.address={cluster.address}", "execution.device=cpu")
        folder = wait_for(lambda: begun(store, "language_model"), "a checkpoint", timeout_s=400, of=driver)
        raylet = psutil.Process(worker_of(store, folder)).parent()
        assert raylet is not None
        (node,) = [node for node in nodes if node.all_processes["raylet"][0].process.pid == raylet.pid]
        cluster.remove_node(node, allow_graceful=False)
        said, _ = driver.communicate(timeout=400)
    finally:
        cluster.shutdown()
    assert driver.returncode == 0, said
    told = [line for line in said.splitlines() if "its Ray worker was lost" in line]
    assert len(told) == 1, said
    assert not [line for line in said.splitlines() if "raylet" in line.lower() and line not in told], said
    named = re.search(r"Ray's logs of it are in (\S+) on its node", told[0])
    assert named is not None, told[0]
    # Ray repeats the bytes of a dying process, which need not be UTF-8.
    logs = [path.read_text(errors="replace") for path in Path(named[1]).glob("*.log")]
    published = [log for log in logs if "Raylet is terminated" in log]
    assert len(published) == 1
    assert len(published[0].split("lines of the Raylet logs:")[1].splitlines()) > 10
    assert outcome_in(store) == undisturbed
