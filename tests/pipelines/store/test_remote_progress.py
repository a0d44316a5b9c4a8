"""A study in an object store, watched from a host that shares nothing else with those that run it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from calm_bench.atomic import write_json
from calm_bench.problems import ConfigurationError
from pipelines.app.cli import app
from pipelines.execution import events
from pipelines.monitor.recording import FOLDER, Recording
from pipelines.monitor.study_watcher import StudyWatcher
from pipelines.monitor.tracker import Tracker
from pipelines.store.errors import StoreUnreachable
from pipelines.store.holder import this_process
from pipelines.store.lease import LeaseManager
from pipelines.store.object_store import ObjectStore
from pipelines.store.store import Store
from pipelines.study.stage import Stage, StageGraph
from tests.object_stores import objects_of

Host = Callable[..., Store]
MakeStage = Callable[..., Stage]
NAME = "tiny-0123456789abcdef"
SIZE = {"hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_attention_heads": 2}
TRAINING = {"num_steps": 300, "batch_size": 4, "sequence_length": 32, "warmup_steps": 1, "log_every": 2}
STUDY = {
    "name": "tiny",
    "corpus": {"source": "markov", "markov": {"num_documents": 40, "document_length": 100}},
    "model": {"kind": "token", **SIZE, "training": {**TRAINING, "validation_batches": 1}},
    "evaluation": {"context_length": 32, "first_position": 8, "num_samples": 2},
    "samples": {"num_prompts": 0},
    "search": {"parameters": [{"name": "seed", "values": [0]}]},
}


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def host(host: Host) -> Host:
    """Hosts that tell often how they get on."""
    return functools.partial(host, progress_every_s=0.05)


@contextmanager
def driven(store: Store, stages: list[Stage], database: str | None = None) -> Iterator[Recording]:
    """A driver whose trials are one stage each."""
    tracker = Tracker()
    recording = Recording(tracker, write_s=0.02, heartbeat_s=0.1)
    with store.studies.open(NAME, database) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        trials = [{"number": n, "state": "open", "stages": {s.kind: s.identity}} for n, s in enumerate(stages)]
        write_json(folder / "trials.json", trials)
        store.studies.save(NAME)
        told: list[events.Event] = [events.StudyStarted("tiny", "ab", folder, len(stages))]
        for number, stage in enumerate(stages):
            told += [events.TrialStarted(number, f"seed={number}", {}, StageGraph((stage,))), events.StageQueued(stage)]
        for event in told:
            tracker.handle(event)
        recording.start(folder)
        yield recording


def at_step(store: Store, stage: Stage, step: int, loss: float) -> None:
    """The stage comes to ``step``, and saves a checkpoint there."""
    line = {"step": step, "total_steps": 100, "split": "train", "metrics": {"loss": loss, "tokens_per_second": 5e3}}
    work = store.work_folder(stage)
    with (work / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n" + json.dumps(line | {"split": "validation", "metrics": {"loss": 9.0}}))
        file.write("\n")
    (work / "checkpoints").mkdir(exist_ok=True)
    (work / "checkpoints" / "step").write_text(str(step))


@pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)
def test_who_shares_only_the_store_sees_the_study_and_where_its_stages_run(
    host: Host, stage: MakeStage, tmp_path: Path
) -> None:
    driver, worker = host("a"), host("b", save_every_s=0.1)
    stages = [replace(stage("steps", seed=seed), label=f"steps of seed {seed}") for seed in (1, 2)]
    watcher = StudyWatcher(host("c"))
    with pytest.raises(ConfigurationError, match=r"no study has begun in the store (memory|file|s3)://"):
        watcher.choose(None)
    with driven(driver, stages) as recording:
        folder = wait_for(lambda: objects_of(driver).list(f"studies/{NAME}/{FOLDER}")) and watcher.choose("tiny")[0]
        assert folder == tmp_path / "host-c" / "studies" / NAME
        seen = watcher.poll(folder)
        assert (seen.stand, seen.view.num_trials, seen.view.running) == ("at work", 2, ())

        began = time.time()
        lease = worker.claim(stages[0])
        assert lease is not None
        (running,) = watcher.poll(folder).view.running
        assert running.host == this_process().host.partition(" ")[0]
        assert began <= running.since <= time.time()
        worker.open_work(stages[0], "cpu")
        at_step(worker, stages[0], 10, 3.25)
        running = wait_for(lambda: next((one for one in watcher.poll(folder).view.running if one.step == 10), None))
        assert (running.label, running.total_steps, running.loss) == ("steps of seed 1", 100, 3.25)
        assert (running.tokens_per_second, running.trial, running.num_trials) == (5e3, 0, 1)
        # S3 tells whole seconds.
        assert began - 1 <= running.as_of <= time.time()
        at_step(worker, stages[0], 20, 2.5)
        wait_for(lambda: [one.loss for one in watcher.poll(folder).view.running] == [2.5])
        lease.release()
        assert watcher.poll(folder).view.running == ()
        recording.close()
    wait_for(lambda: watcher.poll(folder).stand == "finished")


def test_a_look_is_three_listings_and_reads_only_what_is_new(
    host: Host, stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, worker, steps = host("a"), host("b", save_every_s=0.1), stage("steps")
    watcher, listed, read = StudyWatcher(host("c")), list[str](), list[str]()
    assert watcher.poll_s / 3 >= 5.0, "no more than a listing each five seconds"
    with driven(driver, [steps]) as recording:
        wait_for(lambda: objects_of(driver).list(f"studies/{NAME}/{FOLDER}"))
        lease = worker.claim(steps)
        assert lease is not None
        worker.open_work(steps, "cpu")
        at_step(worker, steps, 10, 3.25)
        folder, _ = watcher.choose(None)
        wait_for(lambda: watcher.poll(folder).view.running[0].step == 10)
        recording.close()
        lease.release()
    wait_for(lambda: watcher.poll(folder).stand == "finished")
    lease = worker.claim(steps)
    assert lease is not None
    watcher.poll(folder)
    ask = ObjectStore._ask

    def note(self: ObjectStore, what: str, key: str, request: Callable[[], Any]) -> Any:
        (listed if what == "list" else read).append(key)
        return ask(self, what, key, request)

    monkeypatch.setattr(ObjectStore, "_ask", note)
    watcher.poll(folder)
    mine = [prefix for prefix in listed if prefix in ("leases", "work") or prefix == f"studies/{NAME}"]
    assert sorted(mine) == ["leases", f"studies/{NAME}", "work"]
    assert not [key for key in read if key.startswith(("studies", "work"))]
    lease.release()


def test_a_driver_that_fell_silent_is_taken_for_dead_and_its_words_are_not_passed_on(
    host: Host, stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = objects_of(host("a"))
    with driven(host("a"), [stage("steps")]) as recording:
        (key,) = wait_for(lambda: home.list(f"studies/{NAME}/{FOLDER}"))
        recording.close()
    wait_for(lambda: b'"finished"' in home.read(key))
    # Until then it may send it once more.
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == f"progress of {NAME}"])
    # As another host's that was cut off in the middle.
    record = json.loads(home.read(key))
    record["driver"] |= {"host": "elsewhere"}
    home.write(key, json.dumps(record | {"state": "at work"}).encode())
    watcher = StudyWatcher(host("c"))
    folder, _ = watcher.choose("tiny")
    assert watcher.poll(folder).stand == "at work"
    for name in (FOLDER, f"{FOLDER}/.half.json"):
        assert not (host("d").root / "studies" / NAME / name).exists()
    monkeypatch.setattr("pipelines.monitor.study_watcher.REMOTE_SILENT_S", 0.0)
    later = StudyWatcher(host("c"))
    seen = later.poll(folder)
    assert (seen.stand, seen.drivers) == ("left", 0)
    assert " continues" in seen.note

    # The next driver neither takes its words for its own nor sends them again.
    before = home.list(f"studies/{NAME}/{FOLDER}")[key]
    store = host("c")
    with driven(store, [stage("steps")]) as second:
        found = wait_for(lambda: len(now := home.list(f"studies/{NAME}/{FOLDER}")) == 2 and now)
        store.studies.save(NAME)
        assert found[key] == home.list(f"studies/{NAME}/{FOLDER}")[key] == before
        second.close()


def test_a_store_that_is_away_leaves_what_was_known(
    host: Host, stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = StudyWatcher(host("c"))
    with driven(host("a"), [stage("steps")]) as recording:
        wait_for(lambda: objects_of(host("a")).list(f"studies/{NAME}/{FOLDER}"))
        folder, _ = watcher.choose(None)
        known = watcher.poll(folder)

        def refuse(self: LeaseManager) -> Any:
            raise StoreUnreachable("cannot list memory://x: no route")

        with monkeypatch.context() as patch:
            patch.setattr(LeaseManager, "held", refuse)
            away = watcher.poll(folder)
        assert away.view == known.view
        assert away.note == "cannot list memory://x: no route; this is what was known before"
        assert watcher.poll(folder).note == ""
        recording.close()


def test_a_driver_without_a_word_is_known_by_what_it_holds(host: Host, stage: MakeStage) -> None:
    """As one of an older version."""
    store, steps = host("a"), stage("steps")
    watcher = StudyWatcher(host("c"))
    with store.studies.open(NAME) as folder:
        folder.mkdir(parents=True)
        write_json(folder / "trials.json", [{"number": 0, "state": "open", "stages": {"steps": steps.identity}}])
        store.studies.save(NAME)
        seen = watcher.poll(watcher.choose(None)[0])
        assert (seen.stand, seen.view.num_trials) == ("at work", 1)
    seen = watcher.poll(watcher.choose(None)[0])
    assert seen.stand == "left"
    assert f"calm-bench run tiny --store {store.uri} continues" in seen.note


WAITING = """
import os, pathlib, time
import torch
from pipelines.store import progress_sender
progress_sender.SEND_S = 0.5
# On a busy machine its last word may take longer than a process waits for it.
progress_sender.LAST_WORD_S = 60.0
from pipelines.app.cli import main
step, steps = torch.optim.AdamW.step, 0
def waiting_step(self, *arguments):
    global steps
    steps += 1
    # Until it has been seen: however fast it is, and however slow who watches.
    while steps == 100 and not pathlib.Path(os.environ["MAY_GO_ON"]).exists():
        time.sleep(0.05)
    return step(self, *arguments)
torch.optim.AdamW.step = waiting_step
main()
"""


@pytest.mark.parametrize("url", ["file"], indirect=True)
@pytest.mark.extended
def test_the_commands_on_two_hosts(url: str, tmp_path: Path) -> None:
    """One runs a study, is stopped, and runs it to its end; the other watches, with a cache of its own."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    may_go_on = tmp_path / "may-go-on"

    def run() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WAITING, "run", str(file), "--local", "--store", url, "tracking.enabled=false"]
        environment = {**os.environ, "CALM_BENCH_CACHE": str(tmp_path / "one"), "OMP_NUM_THREADS": "1"}
        environment["MAY_GO_ON"] = str(may_go_on)
        return subprocess.Popen(
            command,
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # In the background of a shell, tests ignore Ctrl-C and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def watch(*arguments: str) -> tuple[int, str]:
        environment = {"CALM_BENCH_CACHE": str(tmp_path / "other"), "COLUMNS": "120"}
        done = CliRunner().invoke(app, ["watch", "tiny", "--store", url, *arguments], env=environment)
        return done.exit_code, done.output

    def seen() -> dict[str, Any]:
        code, text = watch("--json", "--once")
        found: dict[str, Any] = json.loads(text) if code == 0 else {}
        return found

    first = run()
    try:
        deadline = time.monotonic() + 120
        while not (running := [one for one in seen().get("running", ()) if one["step"] and one["host"]]):
            assert first.poll() is None, first.stdout.read() if first.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.3)
        (stage,) = running
        assert stage["host"] == this_process().host.partition(" ")[0]
        assert 0 < stage["step"] <= 100
        assert stage["loss"] > 0
        assert stage["as_of"] <= time.time() + 1
        text = watch("--once")[1]
        assert "As of" in text
        assert " ago" in text
    finally:
        first.send_signal(signal.SIGINT)
        may_go_on.touch()
        first.communicate(timeout=240)
    # Its last word was sent before it was gone.
    (record,) = (tmp_path / "home" / "studies").glob(f"tiny-*/{FOLDER}/*.json")
    assert json.loads(record.read_text())["state"] == "stopped"
    code, text = watch("--plain")
    assert code == 1
    assert "no driver is at work since" in text
    second = run()
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said
    code, text = watch("--plain")
    assert code == 0
    assert "the study ended at" in text
    assert seen()["complete"] == 1


@pytest.mark.parametrize("url", ["memory", "s3"], indirect=True)
def test_a_study_that_was_taken_up_again_and_stopped_is_not_the_finished_one_of_before(host: Host) -> None:
    """As in a folder: who begins removes what drivers have left that ended, also from the copy of who watches."""
    first, second, watcher = host("a"), host("b"), StudyWatcher(host("c"))
    with driven(first, []) as recording:
        recording.close()
    folder = wait_for(lambda: objects_of(first).list(f"studies/{NAME}/{FOLDER}")) and watcher.choose("tiny")[0]
    wait_for(lambda: watcher.poll(folder).stand == "finished")
    with driven(second, []) as recording:
        wait_for(lambda: watcher.poll(folder).stand == "at work")
        recording.close(KeyboardInterrupt())
    wait_for(lambda: watcher.poll(folder).stand == "left")
    assert len(objects_of(first).list(f"studies/{NAME}/{FOLDER}")) == 1
    assert StudyWatcher(host("d")).choose("tiny")[0].name == folder.name


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_the_last_word_of_a_driver_here_stands_whatever_the_clocks(host: Host) -> None:
    """Its object is of before, as where the store was away at the end, and the clock of the store is an hour ahead."""
    driver = host("a", progress_every_s=3600.0)
    objects = objects_of(driver)
    with driven(driver, []) as recording:
        (key,) = wait_for(lambda: objects.list(f"studies/{NAME}/{FOLDER}"))
        before = objects.read(key)
        recording.close()
    wait_for(lambda: objects.read(key) != before)
    objects.write(key, before)
    (path,) = (driver.root / "studies" / NAME / FOLDER).glob("*.json")
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    watcher = StudyWatcher(driver)
    folder = watcher.choose("tiny")[0]
    assert [watcher.poll(folder).stand for _ in range(2)] == ["finished", "finished"]


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_who_watches_leaves_the_account_of_a_driver_here_that_has_sent_nothing_yet(host: Host) -> None:
    driver = host("a", progress_every_s=3600.0)
    objects = objects_of(driver)
    with driven(driver, []) as recording:
        (key,) = wait_for(lambda: objects.list(f"studies/{NAME}/{FOLDER}"))
        (sent,) = (driver.root / "studies" / NAME / FOLDER).glob("*.json")
        new, ended = sent.with_name("new.json"), sent.with_name("ended.json")
        new.write_bytes(objects.read(key))
        ended.write_text(json.dumps(json.loads(objects.read(key)) | {"state": "finished"}))
        StudyWatcher(driver).choose("tiny")
        assert new.is_file()
        assert not ended.exists()
        recording.close()
