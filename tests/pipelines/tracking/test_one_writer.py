"""Of several drivers of a study one writes it into MLflow, on whichever host each of them is."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.execution.events import StudyStarted
from pipelines.store.mlflow_record import MlflowRecord
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.study.config import Study, Tracking
from pipelines.tracking.client import connect, writer_lease
from pipelines.tracking.listener import TrackingListener
from pipelines.tracking.sync import StudySync
from pipelines.tracking.views import leaderboard_page
from tests.object_stores import objects_of, remote_store
from tests.pipelines.tracking.conftest import StudyWriter

IDENTITY = "5f" * 8
STUDY = Study(name="shared")
Host = Callable[[str], Store]


@pytest.fixture
def host(tmp_path: Path, empty_database: Path) -> Host:
    """A store in memory, as hosts with folders of their own have it."""
    url = f"memory://{uuid.uuid4().hex}"

    def make(name: str) -> Store:
        store = remote_store(ObjectStore(url), tmp_path / name)
        store.root.mkdir()
        shutil.copy(empty_database, store.root / "mlflow.db")
        return store

    return make


def driver(store: Store, uri: str | None) -> TrackingListener:
    """Begun."""
    files = StudyWriter(store.root, STUDY, IDENTITY)
    listener = TrackingListener(Tracking(uri=uri), store, files.folder, interval_s=0.05)
    listener.handle(StudyStarted(STUDY.name, IDENTITY, files.folder, 0))
    return listener


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def num_runs(uri: str) -> int:
    client = connect(uri)
    experiment = client.get_experiment_by_name("calm-bench")
    return 0 if experiment is None else len(client.search_runs([experiment.experiment_id]))


def _has_a_run(uri: str) -> bool:
    return num_runs(uri) == 1


def test_drivers_on_two_hosts_meet_at_the_store_they_share(host: Host, tmp_path: Path, empty_database: Path) -> None:
    shutil.copy(empty_database, tmp_path / "common.db")
    uri = f"sqlite:///{tmp_path / 'common.db'}"
    one, other = host("a"), host("b")
    first = driver(one, uri)
    wait_for(lambda: num_runs(uri) == 1)
    (claim,) = objects_of(one).list("leases")
    assert claim.startswith(f"leases/mlflow-{IDENTITY}-")
    second = driver(other, uri)
    time.sleep(1.0)
    assert not (other.root / "leases").exists()
    # A claim that it withdraws may stand beside it at first.
    wait_for(lambda: [*objects_of(one).list("leases")] == [claim])
    # The writer ends, as by Ctrl-C; the other driver takes over, and finds what there is.
    assert first.close()
    wait_for(lambda: (held := [*objects_of(one).list("leases")]) and held != [claim])
    assert second.close()
    assert num_runs(uri) == 1
    assert not objects_of(one).list("leases")


def test_a_file_of_its_own_has_a_writer_on_each_host(host: Host) -> None:
    stores = [host("a"), host("b")]
    listeners = [driver(store, None) for store in stores]
    for store in stores:
        wait_for(partial(_has_a_run, f"sqlite:///{store.root / 'mlflow.db'}"))
    for listener in listeners:
        assert listener.close()
    assert not objects_of(stores[0]).list("leases")
    assert not [*stores[0].root.glob("leases/*.json")]


def test_who_is_not_the_writer_tells_the_leaderboards_page_too(tmp_path: Path) -> None:
    """A driver that ends beside the writer prints where the study is in MLflow, and not MLflow's first page."""
    store, server = Store(tmp_path), "http://127.0.0.1:9"
    folder = StudyWriter(tmp_path, STUDY, IDENTITY).folder
    beside = StudySync(store, folder, server, "calm-bench")
    assert beside.page is None
    record = MlflowRecord(address=server, experiment_id="7", parent_run_id="ab", runs={})
    record.save(folder)
    assert beside.page == leaderboard_page(server, "7")
    # What was sent elsewhere has no page here.
    record.model_copy(update={"address": "http://127.0.0.1:10"}).save(folder)
    assert beside.page is None


def test_who_comes_as_another_user_is_another_driver_all_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    addresses = ["http://host:5000", "http://me:secret@host:5000", "http://you:a%2Fb@host:5000"]
    assert len({writer_lease(store, uri, IDENTITY)[1] for uri in addresses}) == 1
    assert len({writer_lease(store, uri, IDENTITY)[1] for uri in (*addresses, "http://other:5000")}) == 2
    assert writer_lease(store, f"sqlite:///{tmp_path / 'mlflow.db'}", IDENTITY)[0] is store.leases
