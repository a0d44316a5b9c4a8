"""A store that is away for a while: an attempt fails and may do better, and a training that runs goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from calm_bench.training_options import DEFAULT_OPTIONS
from pipelines.execution.local_executor import LocalExecutor
from pipelines.execution.ray_executor import _perform
from pipelines.execution.run_stage import StageError
from pipelines.execution.worker_process import LOOK_S, StopFiles
from pipelines.store.flags import ObjectFlags
from pipelines.store.object_store import ObjectStore
from pipelines.study.stage import Stage
from pipelines.study.stage_kind import STAGE_KINDS
from tests.faults.small_study import wait_for
from tests.object_stores import remote_store, s3, s3_server

__all__ = ["s3", "s3_server"]


def test_a_lease_that_a_store_does_not_give_may_be_given_later(
    toy: Callable[..., Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.store.object_store.PAUSES_S", ())
    home = tmp_path / "home"
    home.touch()
    store, stage = remote_store(ObjectStore(f"file://{home}"), tmp_path / "host"), toy("text")
    work = (store, stage, STAGE_KINDS.get(stage.kind), "cpu", ("all", "one"), DEFAULT_OPTIONS, None, None)
    told = _perform(*work)
    assert isinstance(told, StageError)
    assert str(told).startswith(f"{stage}: StoreUnreachable: cannot write file://{home}/leases/")
    assert told.cause == "transient"
    executor = LocalExecutor(store)
    with pytest.raises(StageError) as failed:
        executor.submit(stage).result()
    executor.close()
    assert failed.value.cause == "transient"
    home.unlink()
    assert "pid" in _perform(*work)  # type: ignore[operator]


def test_a_server_that_is_silent_holds_no_training_up(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem  # type: ignore[import-untyped]

    # Connections are kept by the address of the store, and not by that of the server.
    S3FileSystem.clear_instance_cache()
    monkeypatch.setattr("calm_bench.first_answer.FIRST_ANSWER_S", 3 * LOOK_S)
    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as there:
        there.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        stop, began = (
            StopFiles(ObjectFlags(ObjectStore("s3://silent/store")).get("one"), every_s=0.01),
            time.monotonic(),
        )
        steps = 0
        while time.monotonic() - began < 2 * LOOK_S:
            assert not stop()
            time.sleep(0.01)
            steps += 1
        assert steps > 10, "only the first look is waited for"
    S3FileSystem.clear_instance_cache()
    flags = ObjectFlags(ObjectStore(s3))
    stop = StopFiles(flags.get("one"), flags.get("two"), every_s=0.0)
    assert not stop()
    flags.raise_flag("two")
    wait_for(stop, "the flag is seen")
