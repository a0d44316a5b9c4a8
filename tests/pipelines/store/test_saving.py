"""Work in progress in a remote home: another host goes on where one stopped or died."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.store.checkpoint_upload import saved_work
from pipelines.store.errors import StoreUnreachable
from pipelines.store.inventory import stored_stages
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.store.sweeping import find_waste, remove
from pipelines.study.stage import Interrupted, Stage
from tests.object_stores import objects_of

Host = Callable[..., Store]
MakeStage = Callable[..., Stage]
Do = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_another_host_goes_on_after_a_polite_stop(host: Host, stage: MakeStage, do: Do) -> None:
    steps = stage("steps", stop_at=4)
    with pytest.raises(Interrupted):
        do(host("a"), steps)
    second = host("b")
    assert not second.is_done(steps)
    assert second.is_started(steps)
    assert do(second, steps) == {"value": 1.0, "first": 4}
    provenance = (second.folder(steps) / "provenance.json").read_text()
    assert provenance.count('"started"') == 2
    # Nothing of the work is left, neither there nor here.
    assert not objects_of(second).list("work")
    assert not objects_of(second).list("leases")
    assert not list((second.root / "work").iterdir())


def test_the_host_that_worked_on_it_keeps_what_it_did_since_the_upload(host: Host, stage: MakeStage, do: Do) -> None:
    steps = stage("steps", stop_at=4)
    store = host("a")
    with pytest.raises(Interrupted):
        do(store, steps)
    (store.work_folder(steps) / "checkpoints" / "step").write_text("6")
    assert do(host("a"), steps) == {"value": 1.0, "first": 6}


def test_what_another_host_did_since_wins(host: Host, stage: MakeStage, do: Do) -> None:
    steps = stage("steps", stop_at=4)
    first, second = host("a"), host("b")
    with pytest.raises(Interrupted):
        do(first, steps)
    lease = second.claim(steps)
    assert lease is not None
    with lease:
        (second.open_work(steps, "cpu") / "checkpoints" / "step").write_text("8")
    assert do(first, steps) == {"value": 1.0, "first": 8}


def test_checkpoints_are_uploaded_while_the_stage_runs(host: Host, stage: MakeStage) -> None:
    steps = stage("steps")
    store = host("a", save_every_s=0.1)
    lease = store.claim(steps)
    assert lease is not None
    work = store.open_work(steps, "cpu")
    (work / "checkpoints").mkdir()
    for content in ("3", "5"):
        (work / "checkpoints" / "step").write_text(content)
        deadline = time.monotonic() + 120
        while _saved_step(objects_of(store), steps) != content:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    # The host dies here: its claim expires, what it had uploaded is taken up.
    objects_of(store).delete(objects_of(store).list("leases"))
    second = host("b")
    adopted = second.open_work(steps, "cpu")
    assert (adopted / "checkpoints" / "step").read_text() == "5"
    assert (adopted / "config.json").is_file()


def _saved_step(home: ObjectStore, steps: Stage) -> str | None:
    found = saved_work(home, steps.name)
    if found is None:
        return None
    return home.read(f"work/{steps.name}/{found.files['checkpoints/step'].object}").decode()


def test_a_damaged_file_is_left_out_with_a_warning(host: Host, stage: MakeStage, do: Do) -> None:
    steps = stage("steps", stop_at=4)
    first = host("a")
    with pytest.raises(Interrupted):
        do(first, steps)
    found = saved_work(objects_of(first), steps.name)
    assert found is not None
    objects_of(first).write(f"work/{steps.name}/{found.files['checkpoints/step'].object}", b"9")
    with pytest.warns(UserWarning, match="checkpoints/step has other content"):
        work = host("b").open_work(steps, "cpu")
    assert not (work / "checkpoints" / "step").exists()
    assert (work / "config.json").is_file()


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_store_that_is_away_does_not_disturb_the_work(
    host: Host, stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = stage("steps")
    store = host("a", save_every_s=0.05)
    lease = store.claim(steps)
    assert lease is not None
    work = store.open_work(steps, "cpu")
    (work / "checkpoints").mkdir()

    def refuse(*arguments: Any) -> None:
        raise StoreUnreachable("away")

    with monkeypatch.context() as away:
        for name in ("write", "upload", "exists", "delete"):
            away.setattr(ObjectStore, name, refuse)
        (work / "checkpoints" / "step").write_text("3")
        time.sleep(0.3)
        lease.release()
    assert (work / "checkpoints" / "step").read_text() == "3"


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_work_that_nobody_goes_on_with_is_listed_and_removed(host: Host, stage: MakeStage, do: Do) -> None:
    steps = stage("steps", stop_at=4)
    with pytest.raises(Interrupted):
        do(host("a"), steps)
    store = host("b")
    (listed,) = stored_stages(store)
    assert (listed.kind, listed.state) == ("steps", "abandoned")
    assert listed.size > 0
    remove(store, find_waste(store))
    assert not objects_of(store).list("")
    assert not store.is_started(steps)


TRAIN = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from conftest import run_steps
from pipelines.execution.run_stage import run_stage
from pipelines.study.stage_kind import STAGE_KINDS, StageKind
from pipelines.study.stage import Stage
from pipelines.study.stage_context import StageContext
from pipelines.store.object_backend import object_backend
from pipelines.store.store import Store

def run(stage, inputs, folder, context):
    print("begins", flush=True)
    return run_steps(stage, inputs, folder, context)

kind = StageKind("steps", run, uses_torch=False)
store = Store(object_backend(sys.argv[2], float(sys.argv[4]), 0.5, 0.1))
stop = lambda: threading.Event().wait(float(sys.argv[3]))
print(run_stage(store, Stage("steps", 1, {"seed": 0}), kind, StageContext("cpu", stop)), flush=True)
"""


@pytest.fixture
def trainer(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a process, as on a host of its own, that wants the same stage as all others."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, pause: float, expiry_s: float = 600.0) -> subprocess.Popen[str]:
        monkeypatch.setenv("CALM_BENCH_CACHE", str(tmp_path / name))
        command = [sys.executable, "-c", TRAIN, str(Path(__file__).parent), s3, str(pause), str(expiry_s)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_two_processes_on_one_s3_store_make_a_stage_once(s3: str, trainer: Any) -> None:
    outputs = [process.communicate() for process in [trainer("a", 0.2), trainer("b", 0.2)]]
    assert [error for _, error in outputs] == ["", ""]
    texts = [text for text, _ in outputs]
    assert sum(text.count("begins") for text in texts) == 1
    assert {text.splitlines()[-1] for text in texts} == {"{'value': 1.0, 'first': 0}"}
    home = ObjectStore(s3)
    assert not [*home.list("leases"), *home.list("work")]
    assert len(home.list("published")) == 1


@pytest.mark.slow
def test_a_killed_process_costs_what_it_did_since_its_last_upload(s3: str, trainer: Any) -> None:
    first = trainer("a", 0.3)
    home = ObjectStore(s3)
    deadline = time.monotonic() + 120
    while not [key for key in home.list("work") if key.count("/") == 1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    # As if it were another host: only the clock of the store tells that the holder is dead.
    (claim,) = home.list("leases")
    home.write(claim, home.read(claim).replace(b'"host": "', b'"host": "elsewhere-'))
    text, error = trainer("b", 0.0, expiry_s=3.0).communicate()
    assert error == ""
    assert text.count("begins") == 1
    assert "'first': 0" not in text
    assert not [*home.list("leases"), *home.list("work")]
