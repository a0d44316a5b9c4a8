"""The rows of the fault table, each played on a small real study; :mod:`bench.recovery` runs and prints them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import yaml

from bench.faulted_stage import PATIENCE_S, FaultedStage, Recovery, last_step
from calm_bench.fingerprint import identity
from pipelines.store.store import Store
from pipelines.study.config import Study
from pipelines.tracking.servers import MlflowServer, free_port
from tests.faults.small_study import (
    STUDY,
    flip_bit,
    kill_with_children,
    left_behind,
    outcome_in,
    start_run,
    wait_for,
)

SETTINGS = tuple(
    f"{section}.training.{setting}"
    for section, steps in (("autoencoder", 200), ("model", 400))
    for setting in (f"num_steps={steps}", "checkpoint_every=50")
)
"""Longer than the tests' study, so that every fault finds what it waits for; some seconds a training."""
FAULT_STEP = 125
"""A step half way between two checkpoints."""
ONE_LONG = (
    "search.parameters.0.include=[token]",
    "model.training.num_steps=24000",
    "model.training.checkpoint_every=500",
    "model.training.log_every=20",
)
"""Long enough to be without MLflow for a while."""
OBJECT_STORE_BYTES = 80 * 2**20
"""Of each node of the simulated cluster."""
WATCHED_S = 6.0
"""How long a training's speed is watched with MLflow, and without."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    fault: str
    recovery: Recovery
    equal: bool
    """Leaderboard and weights are those of the undisturbed study, and nothing is left behind in the store."""
    remark: str = ""


class Scene:
    """A folder for the stores of all rows, and the undisturbed study that they are compared with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "faults.yaml"
        self._file.write_text(yaml.safe_dump(Study.model_validate(STUDY).model_dump(mode="json"), sort_keys=False))
        self._settings: dict[Path, tuple[str, ...]] = {}

    def store(self, *finished: str, settings: tuple[str, ...] = SETTINGS) -> Store:
        """A new store that holds the undisturbed study's stages of the kinds ``finished``, to be run with
        ``settings``."""
        store = Store(self.folder / f"disturbed-{len(list(self.folder.glob('disturbed-*')))}")
        for kind in finished:
            shutil.copytree(self.undisturbed().root / "stages" / kind, store.root / "stages" / kind)
        self._settings[store.root] = settings
        return store

    def copy(self, store: Store) -> Store:
        """Another store in the same state."""
        copied = self.store(settings=self._settings[store.root])
        shutil.copytree(store.root, copied.root, dirs_exist_ok=True)
        return copied

    def undisturbed(self, settings: tuple[str, ...] = SETTINGS) -> Store:
        """The store of the study that was left alone; it is run once."""
        store = Store(self.folder / f"undisturbed-{identity(settings)}")
        self._settings[store.root] = settings
        if not list(store.root.glob("studies/*/report.html")):
            self.end(self.start(store, "--local"))
        return store

    def start(self, store: Store, *arguments: str) -> subprocess.Popen[str]:
        """Give the command that runs the study."""
        return start_run(self._file, store, *self._settings[store.root], *arguments, folder=self.folder)

    @staticmethod
    def end(driver: subprocess.Popen[str]) -> None:
        """Wait for the command to succeed."""
        said, _ = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, said

    def is_undisturbed(self, store: Store) -> bool:
        expected = outcome_in(self.undisturbed(self._settings[store.root]))
        return outcome_in(store) == expected and not left_behind(store)


def worker_killed(scene: Scene) -> Iterator[Row]:
    store = scene.store("corpus", "tokens")
    driver = scene.start(store)
    found = {}
    for kind in ("autoencoder", "language_model", "evaluation"):
        stage = FaultedStage.while_running(store, kind, driver, 1 if kind == "evaluation" else FAULT_STEP)
        stage.inject()
        os.kill(stage.worker, signal.SIGKILL)
        found[kind] = stage.recovery(driver)
    scene.end(driver)
    for kind, recovery in found.items():
        yield Row(f"worker killed, {kind.replace('_', ' ')}", recovery, scene.is_undisturbed(store))


def driver_killed(scene: Scene) -> Iterator[Row]:
    yield _same_command(scene, "driver killed", lambda driver: driver.kill())


def everything_killed(scene: Scene) -> Iterator[Row]:
    yield _same_command(scene, "everything killed", kill_with_children)


def interrupted(scene: Scene) -> Iterator[Row]:
    yield _same_command(scene, "Ctrl-C", lambda driver: os.killpg(driver.pid, signal.SIGINT))


def _same_command(scene: Scene, fault: str, befall: Callable[[subprocess.Popen[str]], object]) -> Row:
    """The command ends by what befalls it and is given again at once."""
    store = scene.store("corpus", "tokens", "autoencoder")
    first = scene.start(store)
    stage = FaultedStage.while_running(store, "language_model", first, FAULT_STEP)
    stage.inject()
    befall(first)
    first.wait()
    given = time.monotonic()
    again = scene.start(store)
    recovery = stage.recovery(again, given)
    scene.end(again)
    return Row(fault, recovery, scene.is_undisturbed(store))


def one_of_two_drivers_killed(scene: Scene) -> Iterator[Row]:
    yield _one_of_two(scene, "one of two drivers killed", elsewhere=False)


def one_of_two_hosts_lost(scene: Scene) -> Iterator[Row]:
    yield _one_of_two(scene, "one of two drivers lost with its host", elsewhere=True)


def _one_of_two(scene: Scene, fault: str, elsewhere: bool) -> Row:
    store = scene.store("corpus", "tokens", "autoencoder")
    drivers = [scene.start(store, "--local") for _ in range(2)]
    stage = FaultedStage.while_running(store, "language_model", drivers[0], FAULT_STEP)
    (victim,) = [driver for driver in drivers if driver.pid == stage.worker]
    (other,) = [driver for driver in drivers if driver is not victim]
    if elsewhere:
        # Not while it could see its lease change.
        victim.send_signal(signal.SIGSTOP)
        stage.seem_elsewhere()
    stage.inject()
    victim.kill()
    recovery = stage.recovery(other)
    victim.wait()
    scene.end(other)
    return Row(fault, recovery, scene.is_undisturbed(store))


def node_lost(scene: Scene) -> Iterator[Row]:
    """Of a cluster of two nodes with Ray's own settings, each with room for all stages."""
    from ray.cluster_utils import Cluster

    for orderly in (True, False):
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            nodes = [cluster.add_node(num_cpus=2, object_store_memory=OBJECT_STORE_BYTES) for _ in range(2)]
            store = scene.store("corpus", "tokens", "autoencoder")
            driver = scene.start(store, f"execution.address={cluster.address}")
            stage = FaultedStage.while_running(store, "language_model", driver, FAULT_STEP)
            raylet = psutil.Process(stage.worker).parent()
            (node,) = [one for one in nodes if raylet and one.all_processes["raylet"][0].process.pid == raylet.pid]
            removal = threading.Thread(target=cluster.remove_node, args=(node, orderly))
            stage.inject()
            removal.start()
            recovery = stage.recovery(driver)
            removal.join()
            scene.end(driver)
        finally:
            cluster.shutdown()
        yield Row(f"node {'removed' if orderly else 'killed'}", recovery, scene.is_undisturbed(store))


def damaged_files(scene: Scene) -> Iterator[Row]:
    """Of a study that was stopped; its command is given again."""
    begun = scene.store("corpus", "tokens", "autoencoder")
    driver = scene.start(begun, "--local")
    folder = FaultedStage.while_running(begun, "language_model", driver, FAULT_STEP).folder
    driver.send_signal(signal.SIGINT)
    driver.wait()

    def cut_checkpoint(store: Store) -> None:
        newest = sorted((store.root / "work").glob("*/checkpoints/*.safetensors"))[-1]
        os.truncate(newest, newest.stat().st_size // 2)

    def change_shard(store: Store) -> None:
        (shard,) = (store.root / "stages" / "tokens").glob("*/train/shard-*.arrow")
        flip_bit(shard, shard.stat().st_size // 2)

    def change_weights(store: Store) -> None:
        (model,) = (store.root / "stages" / "autoencoder").glob("*/model/model.safetensors")
        flip_bit(model, -9)

    for fault, harm in (
        ("checkpoint cut short", cut_checkpoint),
        ("a bit of a shard flipped", change_shard),
        ("a bit of an autoencoder's weights flipped", change_weights),
    ):
        store = scene.copy(begun)
        harm(store)
        stage = FaultedStage(store, store.root / "work" / folder.name)
        stage.inject()
        given = time.monotonic()
        driver = scene.start(store, "--local")
        recovery = stage.recovery(driver, given)
        scene.end(driver)
        for aside in (store.root / "damaged").glob("*/provenance.json"):
            recovery = replace(recovery, lost_s=recovery.lost_s + json.loads(aside.read_text())["wall_time_s"])
        yield Row(fault, recovery, scene.is_undisturbed(store))


def disk_full(scene: Scene) -> Iterator[Row]:
    """The worker may write no file as large as a checkpoint, until the stage has failed by it."""
    store = scene.store("corpus", "tokens", "autoencoder")
    driver = scene.start(store)
    stage = FaultedStage.while_running(store, "language_model", driver, FAULT_STEP)
    worker = stage.worker
    size = next(stage.folder.glob("checkpoints/*.safetensors")).stat().st_size
    _, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (size // 2, hard))
    wait_for((stage.folder / "error.txt").exists, "the stage has failed", PATIENCE_S, driver)
    stage.inject()
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (hard, hard))
    recovery = stage.recovery(driver)
    scene.end(driver)
    yield Row("disk full at a checkpoint", recovery, scene.is_undisturbed(store))


def mlflow_away(scene: Scene) -> Iterator[Row]:
    """The server is killed during a training and comes back; ``noticed_s`` is from its first answer until MLflow has
    all that had been logged by then."""
    scene.undisturbed(ONE_LONG)
    store = scene.store("corpus", "tokens", settings=ONE_LONG)
    place = scene.folder / f"mlflow-of-{store.root.name}"
    place.mkdir()
    database, port = place / "mlflow.db", free_port(0)
    server = MlflowServer(f"sqlite:///{database}", place / "artifacts", port, place / "first.log")
    try:
        server.wait()
        driver = scene.start(store, "tracking.enabled=true", f"tracking.uri={server.address}")
        stage = FaultedStage.while_running(store, "language_model", driver, FAULT_STEP)
        wait_for(lambda: _num_tracked(database) > 0, "MLflow has the first lines", PATIENCE_S, driver)
        with_it = _steps_per_second(stage.folder)
        server.stop(signal.SIGKILL)
        without_it = _steps_per_second(stage.folder)
        server = MlflowServer(f"sqlite:///{database}", place / "artifacts", port, place / "second.log")
        server.wait()
        stage.inject()
        logged = last_step(stage.folder)
        wait_for(lambda: _num_tracked(database) >= logged, "MLflow has caught up", PATIENCE_S, driver)
        caught_up = time.monotonic() - stage.injected
        scene.end(driver)
    finally:
        server.stop()
    remark = f"{without_it:.0f} steps/s without MLflow, {with_it:.0f} with it"
    yield Row("MLflow's server killed and back", Recovery(caught_up, 0.0), scene.is_undisturbed(store), remark)


def _num_tracked(database: Path) -> int:
    """The last step of which MLflow has the loss."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        (step,) = connection.execute("SELECT max(step) FROM metrics WHERE key = 'train/loss'").fetchone()
    return int(step or 0)


def _steps_per_second(folder: Path) -> float:
    first, begun = last_step(folder), time.monotonic()
    time.sleep(WATCHED_S)
    return (last_step(folder) - first) / (time.monotonic() - begun)


ROWS: dict[str, Callable[[Scene], Iterator[Row]]] = {
    "worker": worker_killed,
    "node": node_lost,
    "driver": driver_killed,
    "host": one_of_two_hosts_lost,
    "two-drivers": one_of_two_drivers_killed,
    "interrupt": interrupted,
    "everything": everything_killed,
    "damage": damaged_files,
    "disk": disk_full,
    "mlflow": mlflow_away,
}
