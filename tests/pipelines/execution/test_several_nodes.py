"""A training whose workers are on different nodes of a cluster, one of which goes away."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray import cloudpickle

from pipelines.execution.events import Event, StageProgress, StageRetried, StageWaiting
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_executor import RayExecutor
from pipelines.execution.scheduler import Scheduler
from pipelines.search.drive import run_study
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.study.config import Execution, Study
from pipelines.study.stage import Stage, StageGraph
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import STAGE_KINDS, StageKind
from tests.object_stores import remote_store

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
OBJECTS = 80 * 2**20


class Misfortune:
    """Listens to a study; takes the second node away in the midst of the language model, and offers another one."""

    def __init__(self, cluster: Any, store: Store) -> None:
        self._cluster, self._store = cluster, store
        self.nodes = [self._node() for _ in range(2)]
        self.had_workers: list[bool] = []
        self.errors: dict[str, str] = {}

    def handle(self, event: Event) -> None:
        if isinstance(event, StageRetried):
            self.errors[event.stage.kind] = event.error
        if not isinstance(event, StageProgress) or event.stage.kind != "language_model" or self.had_workers:
            return
        if list((self._store.work_folder(event.stage) / "checkpoints").glob("*.sha256")):
            self.had_workers = [_has_worker(node) for node in self.nodes]
            self._cluster.remove_node(self.nodes[1], allow_graceful=False)
            self._node()

    def _node(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs nothing, and notices lost nodes within seconds."""
    from ray.cluster_utils import Cluster

    # The nodes inherit it: what they keep of an object store must not stay in the user's folder.
    monkeypatch.setenv("CALM_BENCH_CACHE", str(tmp_path / "nodes"))

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "object_store_memory": OBJECTS, "_system_config": quick, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def run_placed(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Tell on which node each worker is."""
    import ray
    import torch.distributed as dist

    nodes = [""] * dist.get_world_size()
    dist.all_gather_object(nodes, ray.get_runtime_context().get_node_id())
    return {"nodes": nodes}


def _has_worker(node: Any) -> bool:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any("TrainWorker" in " ".join(child.cmdline()) for child in raylet.children())


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """Losses by step, without times, and without norms, which amplify what sums have left."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {"step": record["step"]}
        | {
            name: value
            for name, value in record["metrics"].items()
            if name != "tokens_per_second" and not name.startswith("grad_norm")
        }
        for record in records
    ]


@pytest.mark.long
def test_a_model_divided_between_two_nodes_one_of_which_is_lost(
    cluster: Any, tmp_path: Path, tiny_study: Callable[..., Study]
) -> None:
    described = tiny_study(search={"parameters": [{"name": "model.chunk_size", "values": [2]}]}).model_dump(mode="json")
    # A rate at which roundings stay roundings over all steps.
    described["model"]["training"] |= {
        "num_steps": 500,
        "checkpoint_every": 20,
        "log_every": 20,
        "learning_rate": 1e-5,
    }
    study = Study.model_validate(described)
    stores = Store(tmp_path / "alone"), Store(tmp_path / "cluster")
    here = LocalExecutor(stores[0], "cpu")
    (alone,) = run_study(study, stores[0], here)
    here.close()
    # Only the language model needs the cluster.
    before = LocalExecutor(stores[1], "cpu")
    assert alone.graph is not None
    for stage in alone.graph.stages[:3]:
        before.submit(stage).result()
    before.close()

    misfortune = Misfortune(cluster, stores[1])
    execution = Execution(address=cluster.address, device="cpu", workers=2, strategy="fsdp", retries=2)
    executor = RayExecutor(stores[1], execution)
    try:
        (shared,) = run_study(study, stores[1], executor, misfortune)
    finally:
        executor.close()

    assert shared.state == alone.state == "complete", shared.error
    assert misfortune.had_workers == [True, True], "each worker on a node of its own"
    assert misfortune.errors.keys() == {"language_model"}, misfortune.errors
    mine, theirs = (_metrics(outcome.folders["language_model"]) for outcome in (shared, alone))
    assert mine == [pytest.approx(record, rel=TOLERANCE, abs=TOLERANCE) for record in theirs]
    record = json.loads((shared.folders["language_model"] / "provenance.json").read_text())
    assert (record["workers"], record["strategy"]) == (2, "fsdp")
    assert len(record["attempts"]) > 1


@pytest.mark.extended
def test_workers_that_share_no_folder_are_all_where_there_is_room_for_them(cluster: Any, tmp_path: Path) -> None:
    """The head has room for none, which is where a task that asks for nothing goes."""
    STAGE_KINDS.register("placed", StageKind("placed", run_placed, data_parallel=True))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    store = remote_store(ObjectStore(f"file://{tmp_path / 'home'}"), tmp_path / "cache")
    room = cluster.add_node(num_cpus=2, object_store_memory=OBJECTS)
    executor = RayExecutor(store, Execution(address=cluster.address, device="cpu", workers=2, cpus_per_stage=0.75))
    try:
        found = executor.submit(Stage("placed", 1, {"seed": 0})).result(timeout=240)
    finally:
        executor.close()
    assert found["nodes"] == [room.node_id] * 2


def run_at_once(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    return {"value": 1}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.extended
def test_a_stage_that_fits_nowhere_says_so_while_it_waits_for_a_node(
    cluster: Any, tmp_path: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("pipelines.execution.scheduler.PATIENCE_S", 0.0)
    STAGE_KINDS.register("at-once", StageKind("at-once", run_at_once, data_parallel=True))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    store, stage, listener = Store(tmp_path), Stage("at-once", 1, {"seed": 0}), recorder()
    cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)
    execution = Execution(address=cluster.address, device="cpu", workers=workers, cpus_per_stage=2 / workers + 0.5)
    executor = RayExecutor(store, execution)
    scheduler = Scheduler(store, executor, listener)
    scheduler.add(StageGraph((stage,)))
    try:
        scheduler.submit()
        begun = time.monotonic()
        while not listener.kinds_of(StageWaiting) and time.monotonic() - begun < 240:
            scheduler.wait()
        (waiting,) = [event for event in listener.events if isinstance(event, StageWaiting)]
        assert "2 nodes with 1 CPU or 0 CPU" in waiting.reason
        if workers == 1:
            cluster.add_node(num_cpus=3, object_store_memory=OBJECTS)
        else:
            scheduler.stop()
        while not scheduler.is_idle:
            scheduler.wait()
    finally:
        executor.close()
    assert scheduler.results == ({stage: {"value": 1}} if workers == 1 else {})
    assert listener.kinds_of(StageWaiting) == ["at-once"]
