"""Corpora and tokens that are made by several workers: the same bits whoever makes them, and whoever is lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from calm_bench.config import Corpus, Experiment, Tokens
from calm_bench.fingerprint import file_digest
from calm_bench.published_parts import PARTIAL, PARTS, RECORD
from pipelines.execution.executor import Executor
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_executor import RayExecutor
from pipelines.execution.run_stage import StageError
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.study.config import Execution
from pipelines.study.graph import stages_for
from pipelines.study.kinds.text_parts import MUCH_TEXT
from pipelines.study.stage import Stage, StageGraph
from tests.object_stores import remote_store

pytestmark = pytest.mark.slow

OBJECTS = 80 * 2**20
NOT_MADE_OF_TEXT = {"config.json", "provenance.json", "files.json", "metrics.jsonl"}


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> StageGraph:
    """The stages of a corpus of three parts and nine parts of tokens."""
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    with path.open("w") as file:
        for number in range(3000):
            file.write(json.dumps({"text": f"document {number} " + f"naïve words {number % 97} " * 2700}) + "\n")
    assert path.stat().st_size > 2 * MUCH_TEXT
    return stages_for(Experiment(corpus=Corpus(source=str(path)), tokens=Tokens(shard_tokens=10_000_000)))


def run(executor: Executor, graph: StageGraph) -> dict[str, dict[str, Any]]:
    return {kind: executor.submit(graph[kind]).result(300) for kind in ("corpus", "tokens")}


def corpus_made_here(store: Store, graph: StageGraph) -> None:
    executor = LocalExecutor(store)
    executor.submit(graph["corpus"]).result()
    executor.close()


def written(store: Store, graph: StageGraph) -> dict[str, str]:
    """Hashes of what the two stages consist of."""
    found: dict[str, str] = {}
    for kind in ("corpus", "tokens"):
        folder = store.fetch(graph[kind])
        files = (path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_MADE_OF_TEXT)
        found |= {f"{kind}/{path.relative_to(folder)}": file_digest(path) for path in files}
    return found


@pytest.fixture(scope="session")
def expected(graph: StageGraph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As this process alone makes them."""
    store = Store(tmp_path_factory.mktemp("local"))
    executor = LocalExecutor(store)
    results = run(executor, graph)
    executor.close()
    assert results["tokens"]["shards"]["train"] > 10
    found = written(store, graph)
    assert {name for name in found if name.startswith("corpus/train")} == {
        f"corpus/train/part-{number:05d}.arrow" for number in range(3)
    }
    assert not {PARTS, PARTIAL} & {name.split("/")[1] for name in found}
    return found


# One worker: also on a cluster of one CPU, below. Two: also those of which one is lost.
@pytest.mark.parametrize(
    ("workers", "cpus"),
    [pytest.param(1, 1.0, marks=pytest.mark.long), pytest.param(2, 1.0, marks=pytest.mark.long), (4, 0.5)],
)
@pytest.mark.extended
def test_any_number_of_workers_makes_the_same_bits(
    tmp_path: Path, graph: StageGraph, expected: dict[str, str], workers: int, cpus: float
) -> None:
    store = Store(tmp_path)
    executor = RayExecutor(store, Execution(max_parallel=workers, cpus_per_stage=cpus))
    try:
        run(executor, graph)
    finally:
        executor.close()
    assert written(store, graph) == expected
    lines = (store.folder(graph["tokens"]) / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert [json.loads(line)["step"] for line in lines] == list(range(1, last["total_steps"] + 1))
    assert last["tokens"] == sum(store.result(graph["tokens"])["tokens"].values())
    assert last["metrics"]["mb_per_second"] > 0


@pytest.fixture
def one_cpu() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": OBJECTS, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


def test_one_cpu_is_enough(tmp_path: Path, graph: StageGraph, expected: dict[str, str], one_cpu: str) -> None:
    store = Store(tmp_path)
    executor = RayExecutor(store, Execution(address=one_cpu))
    try:
        run(executor, graph)
    finally:
        executor.close()
    assert written(store, graph) == expected


@pytest.fixture
def idle_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head runs nothing, and two nodes that do."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("CALM_BENCH_CACHE", str(tmp_path / "nodes"))
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "object_store_memory": OBJECTS, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)
    yield cluster
    cluster.shutdown()


@pytest.mark.extended
def test_parts_for_an_object_store_are_made_where_the_stage_is(
    tmp_path: Path, graph: StageGraph, expected: dict[str, str], idle_head: Any
) -> None:
    store = remote_store(ObjectStore(f"file://{tmp_path / 'home'}"), tmp_path / "cache")
    executor = RayExecutor(store, Execution(address=idle_head.address))
    try:
        run(executor, graph)
    finally:
        executor.close()
    assert written(store, graph) == expected


def published(store: Store, stage: Stage) -> int:
    return len(list((store.work_folder(stage) / PARTS).glob(f"*/{RECORD}")))


def kill_workers_of_parts() -> int:
    """Kill those that make parts, and not the one that waits for them."""
    workers = [child for child in psutil.Process().children(recursive=True) if child.name().startswith("ray::Map")]
    for worker in workers:
        worker.kill()
    return len(workers)


@pytest.mark.extended
def test_lost_workers_cost_their_parts_alone(tmp_path: Path, graph: StageGraph, expected: dict[str, str]) -> None:
    store = Store(tmp_path)
    corpus_made_here(store, graph)
    executor = RayExecutor(store, Execution(max_parallel=2))
    try:
        tokens: Future[dict[str, Any]] = executor.submit(graph["tokens"])
        killed = 0
        while not tokens.done() and killed < 2:
            if published(store, graph["tokens"]) > 1:
                killed += kill_workers_of_parts()
            time.sleep(0.05)
        tokens.result(300)
    finally:
        executor.close()
    assert killed
    assert written(store, graph) == expected


@pytest.mark.long  # lost workers are in the suite
def test_a_lost_node_costs_its_parts_alone(
    tmp_path: Path, graph: StageGraph, expected: dict[str, str], idle_head: Any
) -> None:
    store = Store(tmp_path / "store")
    corpus_made_here(store, graph)
    executor = RayExecutor(store, Execution(address=idle_head.address))
    try:
        tokens = executor.submit(graph["tokens"])
        while published(store, graph["tokens"]) < 2:
            assert not tokens.done()
            time.sleep(0.05)
        before = published(store, graph["tokens"])
        idle_head.remove_node(idle_head.worker_nodes.copy().pop(), allow_graceful=False)
        if (error := tokens.exception(300)) is not None:
            # It was the node where the stage itself waited: a study tries it again.
            assert isinstance(error, StageError)
            assert error.cause == "transient"
            assert published(store, graph["tokens"]) >= before
            executor.submit(graph["tokens"]).result(300)
    finally:
        executor.close()
    assert written(store, graph) == expected


LIMITED = """
import os, resource, sys
from pathlib import Path

limit = Path({flag!r})
if limit.exists() and any("default_worker" in argument for argument in sys.orig_argv):
    most = int(limit.read_text())
    # Compiled modules would stay cut off.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


@pytest.fixture
def fill_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Lets files of workers that start from now on have so many bytes at most; None, any number.

    The limit is the kernel's, and ends writing as a full disk does.
    """
    flag, folder = tmp_path / "limit", tmp_path / "startup"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(LIMITED.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))

    def fill(most: int | None) -> None:
        flag.unlink(missing_ok=True)
        if most is not None:
            flag.write_text(str(most))

    return fill


@pytest.mark.parametrize(
    ("kind", "most"), [pytest.param("corpus", 45_000_000, marks=pytest.mark.long), ("tokens", 15_000_000)]
)
@pytest.mark.extended
def test_a_full_disk_is_named_and_the_same_stage_goes_on(
    tmp_path: Path,
    graph: StageGraph,
    expected: dict[str, str],
    fill_disks: Callable[[int | None], None],
    kind: str,
    most: int,
) -> None:
    store = Store(tmp_path / "store")

    def attempt(what: str) -> None:
        executor = RayExecutor(store, Execution(max_parallel=1))
        try:
            executor.submit(graph[what]).result(300)
        finally:
            executor.close()

    if kind == "tokens":
        corpus_made_here(store, graph)
    fill_disks(most)
    with pytest.raises(StageError, match=rf"make room, and the same command goes on .*{graph[kind].name}") as failed:
        attempt(kind)
    assert "File too large" in str(failed.value)
    kept = {path.stat().st_ino for path in (store.work_folder(graph[kind]) / PARTS).glob("*/train.arrow")}
    assert published(store, graph[kind]) >= (kind == "tokens"), "the tokenizer"
    fill_disks(None)
    attempt(kind)
    if kind == "corpus":
        attempt("tokens")
    assert written(store, graph) == expected
    assert kept <= {path.stat().st_ino for path in store.folder(graph["corpus"]).rglob("*.arrow")}
