"""A command that is told to end, by any signal and at any moment: its exit code, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from pipelines.store.store import Store
from pipelines.study.config import Study
from tests.faults.conftest import finish
from tests.faults.small_study import COMMAND, Outcome, begun, left_behind, wait_for

pytestmark = pytest.mark.slow

MARK = "CALM_BENCH_TEST_RUN"
CRASH = ("Traceback", "*** SIG", "Aborted", "core dumped", "Fatal", "Check failed")
LONG = 20_000
"""Steps of a training that no moment of these tests comes after."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Starter = Callable[..., "Run"]


class Run:
    """One ``calm-bench run``, with all processes that it started and that they did, orphans too."""

    def __init__(self, file: Path, store: Store, *arguments: str, ignored: signal.Signals | None = None) -> None:
        self.mark = uuid.uuid4().hex
        # Tests may themselves run where a signal is ignored, as in the background of a shell.
        prelude = "from signal import *; signal(1, SIG_DFL); signal(15, SIG_DFL); signal(2, default_int_handler); "
        if ignored is not None:
            prelude += f"signal({int(ignored)}, SIG_IGN); "
        self.process = subprocess.Popen(
            [*COMMAND[:2], prelude + COMMAND[2], "run", str(file), "--store", str(store.root), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=file.parent,
            env={**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def living(self) -> list[psutil.Process]:
        """Its processes that live, the first one included."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def names(self) -> str:
        """The names of its processes."""
        found = []
        for process in self.living():
            with suppress(psutil.Error):
                found.append(process.name())
        return " ".join(found)

    def send_to_all(self, number: signal.Signals) -> None:
        """As Slurm, Docker and Kubernetes end a job."""
        for process in self.living():
            with suppress(psutil.Error):
                process.send_signal(number)

    def assert_ended_by(self, number: signal.Signals, store: Store) -> str:
        """The exit code says so, nothing crashed, and nothing is left; returns what was printed."""
        said, _ = self.process.communicate(timeout=90)
        # Before Python runs a line of ours the system itself ends it, which shells tell in the same way.
        code = self.process.returncode if self.process.returncode >= 0 else 128 - self.process.returncode
        assert code == 128 + number, said
        assert not [word for word in CRASH if word in said], said
        # A busy machine takes its time over processes that were killed; those of Ray that nobody ends live a minute.
        with suppress(AssertionError):
            wait_for(lambda: not self.living(), "no process is left", timeout_s=20.0)
        assert not self.living(), self.names()
        leases = store.root / "leases"
        assert [path.name for path in leases.glob("*") if path.name != ".guard"] == [], said
        return said


@pytest.fixture(scope="module")
def ended(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A store in which the study has ended, and what came of it."""
    folder = tmp_path_factory.mktemp("ended") / "store"
    return folder, finish(study, Store(folder))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One that is not asked for all that it should be in the end: stages stay unfinished."""
    return Store(tmp_path / "store")


@pytest.fixture
def start(store: Store, study: Study, tmp_path: Path) -> Iterator[Starter]:
    """Starts the study; what is left of it at the end is killed."""
    file = tmp_path / "faults.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    runs: list[Run] = []

    def begin(*arguments: str, ignored: signal.Signals | None = None) -> Run:
        runs.append(Run(file, store, *arguments, ignored=ignored))
        return runs[-1]

    yield begin
    for run in runs:
        for process in run.living():
            process.kill()


def failed_trials(store: Store) -> list[str]:
    """What the records of all studies say of trials that failed."""
    found = []
    for path in (store.root / "studies").glob("*/trials.json"):
        found += [trial["error"] for trial in json.loads(path.read_text()) if trial["state"] == "failed"]
    return found


def importing(run: Run, store: Store) -> bool:
    """Python has begun, and the command has not."""
    time.sleep(0.3)
    return True


def starting_ray(run: Run, store: Store) -> bool:
    return "gcs_server" in run.names()


def training(run: Run, store: Store) -> bool:
    return begun(store, "language_model") is not None


@pytest.mark.parametrize("moment", [importing, starting_ray, pytest.param(training, marks=pytest.mark.extended)])
def test_sigterm_in_a_store_that_holds_an_ended_study(
    moment: Callable[[Run, Store], bool], start: Starter, store: Store, ended: tuple[Path, Outcome]
) -> None:
    """Where a study of the name has ended Ray started late, and its handler of failures came after ours."""
    shutil.copytree(ended[0], store.root)
    run = start("seed=7", "model.training.num_steps=160")
    wait_for(lambda: moment(run, store), moment.__name__, of=run.process)
    run.process.send_signal(signal.SIGTERM)
    said = run.assert_ended_by(signal.SIGTERM, store)
    assert failed_trials(store) == []
    if moment is training:
        assert "stopped by SIGTERM" in said
        assert "The same command goes on from there" in said
        assert begun(store, "language_model") is not None, "what was reached is kept"
    else:
        assert left_behind(store) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_the_exit_code_is_the_signals(number: signal.Signals, start: Starter, store: Store) -> None:
    run = start("--local")
    wait_for(lambda: begun(store, "autoencoder"), "a training has a checkpoint", of=run.process)
    run.process.send_signal(number)
    run.assert_ended_by(number, store)


@pytest.mark.extended
def test_what_was_ignored_at_the_start_stays_ignored(start: Starter, store: Store) -> None:
    """As under nohup."""
    run = start("--local", ignored=signal.SIGHUP)
    wait_for(lambda: begun(store, "autoencoder"), "a training has a checkpoint", of=run.process)
    run.process.send_signal(signal.SIGHUP)
    said, _ = run.process.communicate(timeout=180)
    assert run.process.returncode == 0, said


def _end_all_at(run: Run, store: Store, moment: Callable[[], bool]) -> None:
    wait_for(moment, "the moment", of=run.process)
    run.send_to_all(signal.SIGTERM)
    run.assert_ended_by(signal.SIGTERM, store)
    assert failed_trials(store) == []


@pytest.mark.parametrize("moment", [pytest.param(starting_ray, marks=pytest.mark.long), training])
@pytest.mark.extended
def test_sigterm_to_all_processes_at_once(
    moment: Callable[[Run, Store], bool], start: Starter, store: Store, study: Study, ended: tuple[Path, Outcome]
) -> None:
    """As scancel, a time limit, and a pod's deletion do; the same command goes on, though nothing may be retried."""
    run = start("execution.retries=0")
    _end_all_at(run, store, lambda: moment(run, store))
    assert (begun(store, "language_model") is not None) == (moment is training)
    assert finish(study, store) == ended[1]


@pytest.mark.long  # the wait for an answer is in the suite
def test_sigterm_to_all_processes_of_a_training_by_two_workers(start: Starter, store: Store) -> None:
    """Ray's servers end too, and nobody carries the answer of workers that have saved: it took Ray's minute."""
    run = start("execution.retries=0", "execution.workers=2", f"autoencoder.training.num_steps={LONG}")
    folder = wait_for(lambda: begun(store, "autoencoder"), "a training has a checkpoint", of=run.process)
    began = time.monotonic()
    run.send_to_all(signal.SIGTERM)
    run.assert_ended_by(signal.SIGTERM, store)
    assert time.monotonic() - began < 30, "a cluster kills after KillWait, half a minute by default"
    assert failed_trials(store) == []
    assert {"saved", "stop"}.isdisjoint(path.name for path in folder.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("attempt", range(30))
def test_a_signal_at_any_moment(attempt: int, start: Starter, store: Store, ended: tuple[Path, Outcome]) -> None:
    if attempt % 2:
        shutil.copytree(ended[0], store.root)
    number = SIGNALS[attempt % 3]
    run = start("seed=7", f"model.training.num_steps={LONG}")
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 0.1 + attempt, "the moment", of=run.process)
    run.process.send_signal(number)
    run.assert_ended_by(number, store)
    assert failed_trials(store) == []


@pytest.mark.long
@pytest.mark.parametrize("attempt", range(20))
def test_sigterm_to_all_at_any_moment(attempt: int, start: Starter, store: Store) -> None:
    run = start("execution.retries=0", f"model.training.num_steps={LONG}")
    began = time.monotonic()
    _end_all_at(run, store, lambda: time.monotonic() - began > 0.1 + 1.5 * attempt)
