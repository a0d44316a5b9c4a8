"""The fault matrix where one process does all the work: damaged files, a full disk, Ctrl-C, two drivers."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipelines.execution.events import Event, StageRetried
from pipelines.execution.local_executor import LocalExecutor
from pipelines.monitor.watching import poll
from pipelines.search.drive import StudyInterrupted, run_study
from pipelines.store.store import Store
from pipelines.study.config import Study
from tests.faults.conftest import finish
from tests.faults.small_study import Outcome, begun, flip_bit, wait_for, weights, written_leaderboard

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.Popen[str]]


class Listener:
    """Remembers what was retried."""

    def __init__(self) -> None:
        self.retried: list[StageRetried] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, StageRetried):
            self.retried.append(event)


def _interrupt(study: Study, store: Store, kind: str) -> Path:
    """Run the study until a stage of ``kind`` has a checkpoint; returns its work folder."""
    executor = LocalExecutor(store, "cpu")

    def stop() -> None:
        wait_for(lambda: begun(store, kind), f"{kind} has a checkpoint", 180)
        os.kill(os.getpid(), signal.SIGINT)
        # At once: until the study looks at the signal, on a fast machine a training this small may have ended.
        executor.stop()

    watcher = threading.Thread(target=stop)
    watcher.start()
    with pytest.raises(StudyInterrupted):
        run_study(study, store, executor)
    executor.close()
    watcher.join()
    return wait_for(lambda: begun(store, kind), f"{kind} has a checkpoint")


def test_a_truncated_checkpoint(study: Study, store: Store, undisturbed: Outcome) -> None:
    folder = _interrupt(study, store, "language_model")
    newest = sorted(folder.glob("checkpoints/*.safetensors"))[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    with pytest.warns(UserWarning, match=f"{re.escape(newest.name)} is damaged"):
        assert finish(study, store) == undisturbed


def test_a_flipped_bit_in_a_shard(study: Study, store: Store, undisturbed: Outcome) -> None:
    _interrupt(study, store, "language_model")
    (shard,) = (store.root / "stages" / "tokens").glob("*/train/shard-*.arrow")
    flip_bit(shard, shard.stat().st_size // 2)
    listener = Listener()
    assert finish(study, store, listener=listener) == undisturbed
    assert any("train/shard-00000.arrow has other content" in event.error for event in listener.retried)
    (aside,) = (store.root / "damaged").iterdir()
    assert aside.name.startswith("tokens-")


def test_a_flipped_bit_in_the_weights_of_an_autoencoder(study: Study, store: Store, undisturbed: Outcome) -> None:
    _interrupt(study, store, "language_model")
    for model in (store.root / "stages" / "autoencoder").glob("*/model/model.safetensors"):
        flip_bit(model, -9)
    assert finish(study, store) == undisturbed


FULL_DISK = """
import json, resource, sys, warnings, yaml
from pathlib import Path
from pipelines.study.config import Study
from pipelines.execution.events import StageProgress, StageRetried
from pipelines.execution.local_executor import LocalExecutor
from pipelines.store.store import Store
from pipelines.search.drive import run_study

class Disk:
    full, retried = False, []
    def handle(self, event):
        if isinstance(event, StageProgress) and event.stage.kind == "language_model" and not self.retried:
            self.limit(20_000)
        if isinstance(event, StageRetried):
            self.limit(resource.RLIM_INFINITY)
            self.retried.append(event.error)
    def limit(self, size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

study = Study.model_validate(yaml.safe_load(Path(sys.argv[1]).read_text()))
store = Store(sys.argv[2])
disk = Disk()
outcomes = run_study(study, store, LocalExecutor(store, "cpu"), disk)
print(json.dumps({"states": [outcome.state for outcome in outcomes], "retried": disk.retried}))
"""


def test_a_disk_that_is_full_at_a_checkpoint(study: Study, store: Store, undisturbed: Outcome, tmp_path: Path) -> None:
    """No file of the process may grow beyond 20 kB, which a checkpoint does, until its failure was told."""
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    done = subprocess.run(
        # -B: Python would leave the compiled modules of others, which it shares, cut off at the limit.
        [sys.executable, "-B", "-c", FULL_DISK, str(file), str(store.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["states"] == ["complete", "complete"]
    assert len(told["retried"]) == 1
    assert re.search("(?i)file too large", told["retried"][0])
    assert finish(study, store) == undisturbed


KILLED = pytest.param(signal.SIGKILL, marks=pytest.mark.extended)


# On Ray both are tested too.
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), KILLED])
def test_a_driver_that_is_told_to_stop_or_killed(
    number: signal.Signals, study: Study, store: Store, command: Command, undisturbed: Outcome
) -> None:
    driver = command("--local")
    wait_for(lambda: begun(store, "language_model"), "a language model has a checkpoint", of=driver)
    os.killpg(driver.pid, number)
    said, _ = driver.communicate(timeout=60)
    if number == signal.SIGINT:
        assert driver.returncode == 130
        assert "Ctrl-C: running stages save a checkpoint and end" in said
        assert "The same command goes on from there" in said
        assert f"faults.yaml --store {store.root} --local" in said
    else:
        assert driver.returncode == -signal.SIGKILL
    (folder,) = (store.root / "studies").iterdir()
    watched = poll(folder, store.root)
    assert watched.stand == "left"
    assert watched.note.endswith(f"faults.yaml --store {store.root} --local continues (in {watched.folder})")
    again = command("--local")
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0, said
    assert poll(folder, store.root).stand == "finished"
    assert written_leaderboard(store) == undisturbed.leaderboard
    assert weights(store) == undisturbed.weights


@pytest.mark.extended
def test_two_drivers_on_one_store(store: Store, command: Command, undisturbed: Outcome) -> None:
    drivers = [command("--local"), command("--local")]
    said = [driver.communicate(timeout=400)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    assert written_leaderboard(store) == undisturbed.leaderboard
    assert weights(store) == undisturbed.weights
    for folder in (store.root / "stages").glob("*/*"):
        attempts = json.loads((folder / "provenance.json").read_text())["attempts"]
        assert len(attempts) == 1, f"{folder} was worked on by {attempts}"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_a_driver_that_is_killed_again_and_again(
    seed: int, store: Store, command: Command, undisturbed: Outcome
) -> None:
    """Five kills, each at a random moment of a run, whatever it happens to be doing."""
    chance = random.Random(seed)
    for _ in range(5):
        driver = command("--local")
        time.sleep(chance.uniform(1, 15))
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate(timeout=60)
    driver = command("--local")
    said, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    assert written_leaderboard(store) == undisturbed.leaderboard
    assert weights(store) == undisturbed.weights
