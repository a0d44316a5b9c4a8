"""What a second terminal sees: a driver at work, killed, stopped, at its end; several of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calm_bench.problems import ConfigurationError
from pipelines.app.cli import app
from pipelines.execution import events
from pipelines.monitor.recording import FOLDER, Record, Recording, read_record
from pipelines.monitor.tracker import Tracker
from pipelines.monitor.watching import choose, poll
from pipelines.store.study_names import studies_called
from pipelines.store.study_record import save_study
from pipelines.study.catalogue import resolve_study

Course = Callable[..., Any]


class Driver:
    """Tells a study's events into a record, as the progress of a run does."""

    def __init__(self, folder: Path) -> None:
        self.tracker = Tracker()
        self.recording = Recording(self.tracker, write_s=0.01, heartbeat_s=0.05)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def tell(self, told: list[events.Event]) -> None:
        for event in told:
            self.tracker.handle(event)
            if isinstance(event, events.StudyStarted):
                self.recording.start(self.folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "studies" / "k-ablation-0123456789abcdef"


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def watch(root: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["watch", "--store", str(root), *arguments], env={"COLUMNS": "100"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_who_watches_sees_what_the_driver_sees_until_the_end(course: Course, tmp_path: Path, folder: Path) -> None:
    study, driver = course(4), Driver(folder)
    driver.tell([*study.start(), *study.end(0), *study.run(2)])
    # Who watches is told where the store is now: it may have moved since the driver wrote.
    own = driver.tracker.view().model_copy(update={"elapsed_s": 0.0, "folder": str(folder)})
    wait_for(lambda: poll(folder, tmp_path).view.model_copy(update={"elapsed_s": 0.0}) == own)
    assert poll(folder, tmp_path).stand == "at work"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.parent.name != FOLDER}
    code, text = watch(tmp_path, "--once")
    assert code == 0
    assert "1 of 4 trials done" in text
    assert "language model K=2" in text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.parent.name != FOLDER} == before
    assert json.loads(watch(tmp_path, "k-ablation", "--json", "--once")[1])["best"] == "token, BrierLM 14.50±0.70"

    driver.tell([event for number in (1, 2, 3) for event in study.end(number)])
    driver.recording.close()
    code, text = watch(tmp_path, "k-ablation")
    assert code == 0
    assert "trial 3 (K=4): complete" in text
    assert "the study ended at" in text
    assert "left" not in text
    assert len(list((folder / FOLDER).iterdir())) == 1


KILLED = """
import os, signal, sys, time
from pathlib import Path
from pipelines.execution import events
from pipelines.monitor.recording import Recording
from pipelines.monitor.tracker import Tracker
sys.argv = ["calm-bench", "run", "k-ablation", "tracking.uri=postgresql://me:hunter2@host/db"]
folder = Path(os.environ["STUDY_FOLDER"])
tracker = Tracker()
tracker.handle(events.StudyStarted("k-ablation", "ab", folder, 4))
Recording(tracker).start(folder)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_driver_that_was_killed_is_known_by_its_process(tmp_path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    began = time.time()
    subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "STUDY_FOLDER": str(folder)}, check=False)
    watched = poll(folder, tmp_path)
    hours = {time.strftime("%H:", time.localtime(moment)) for moment in (began, watched.since)}
    assert watched.stand == "left"
    command = f'calm-bench run k-ablation "tracking.uri=${{MLFLOW_TRACKING_URI:?}}" --store {tmp_path} continues'
    assert any(f"no driver is at work since {hour}" in watched.note for hour in hours)
    assert command in watched.note
    assert watch(tmp_path, "k-ablation", "--plain")[0] == 1
    # The next driver clears away what this one left.
    (folder / FOLDER / ".half.json").write_text("{")
    os.utime(folder / FOLDER / ".half.json", (0, 0))
    driver = Driver(folder)
    driver.tell([events.StudyStarted("k-ablation", "ab", folder, 4)])
    assert poll(folder, tmp_path).stand == "at work"
    assert len(list((folder / FOLDER).iterdir())) == 1
    driver.recording.close()


def _at_work(course: Course, folder: Path) -> Path:
    """The record of a driver that has begun and told nothing since."""
    driver = Driver(folder)
    driver.tell(course(4).start())
    driver.recording.close()
    (path,) = (folder / FOLDER).iterdir()
    record = read_record(path)
    assert record is not None
    path.write_text(record.model_copy(update={"state": "at work"}).model_dump_json())
    return path


def _on_another_host(path: Path, age_s: float) -> None:
    record = json.loads(path.read_text())
    record["driver"] |= {"host": "elsewhere", "pid": 1}
    path.write_text(json.dumps(record))
    then = time.time() - age_s
    os.utime(path, (then, then))


@pytest.mark.parametrize(
    ("age_s", "elsewhere", "stand"), [(5.0, True, "at work"), (3600.0, True, "left"), (3600.0, False, "at work")]
)
def test_a_driver_on_another_host_is_known_by_its_silence(
    course: Course, tmp_path: Path, folder: Path, age_s: float, elsewhere: bool, stand: str
) -> None:
    """One on this host is known by its process: the clock may have been set, or be another than the file server's."""
    path = _at_work(course, folder)
    if elsewhere:
        _on_another_host(path, age_s)
    os.utime(path, (time.time() - age_s,) * 2)
    assert poll(folder, tmp_path).stand == stand


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
@pytest.mark.parametrize(("silent_s", "stand"), [(5.0, "at work"), (90.0, "left")])
def test_whose_clock_is_off_sees_the_silence_of_a_driver_on_another_host(
    course: Course, tmp_path: Path, folder: Path, ahead_s: float, silent_s: float, stand: str, monkeypatch: Any
) -> None:
    """By the clock of the file system, which dates what the driver writes."""
    path = _at_work(course, folder)
    _on_another_host(path, silent_s)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + ahead_s)
    assert poll(folder, tmp_path).stand == stand
    assert [found.name for found in (folder / FOLDER).iterdir()] == [path.name]


def test_of_several_drivers_the_furthest_counts_with_what_all_of_them_run(
    course: Course, tmp_path: Path, folder: Path
) -> None:
    study = course(4)
    first, second = Driver(folder), Driver(folder)
    first.tell([*study.start(), *study.end(0), *study.run(1)])
    second.tell([*course(4).start(), *study.run(2)])
    wait_for(lambda: len(poll(folder, tmp_path).view.running) == 2)
    watched = poll(folder, tmp_path)
    assert (watched.drivers, watched.view.complete) == (2, 1)
    assert sorted(stage.label for stage in watched.view.running) == ["language model K=1", "language model K=2"]
    assert watched.note == "2 drivers are at work on it"
    first.recording.close()
    second.recording.close(KeyboardInterrupt())
    assert poll(folder, tmp_path).stand == "finished"


def test_a_stopped_study_says_how_to_go_on(course: Course, tmp_path: Path, folder: Path) -> None:
    driver = Driver(folder)
    driver.tell([*course(4).start(), events.StudyStopping("Ctrl-C")])
    driver.recording.close(KeyboardInterrupt())
    assert poll(folder, tmp_path).stand == "left"
    assert " continues" in poll(folder, tmp_path).note


def test_a_study_is_chosen_by_name_folder_or_file(course: Course, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no study has begun in the store"):
        choose(tmp_path, None)
    other = tmp_path / "studies" / "heads-fedcba9876543210"
    other.mkdir(parents=True)
    (other / "trials.json").write_text('[{"number": 0, "state": "complete"}, {"number": 1, "state": "failed"}]')
    driver = Driver(folder)
    driver.tell(course(4).start())
    assert choose(tmp_path, None) == (folder, [])
    assert choose(tmp_path, "heads") == (other, [])
    assert choose(tmp_path, other.name) == (other, [])
    file = tmp_path / "mine.yaml"
    file.write_text("name: heads\n")
    assert choose(tmp_path, str(file)) == (other, [])
    with pytest.raises(ConfigurationError, match=r"no study .haeds. .*did you mean 'heads'"):
        choose(tmp_path, "haeds")
    watched = poll(other, tmp_path)
    assert (watched.stand, watched.view.complete, watched.view.failed) == ("finished", 1, 1)
    driver.recording.close()


def test_a_file_means_the_study_that_it_describes_and_not_the_newest_of_its_name(
    course: Course, tmp_path: Path, folder: Path
) -> None:
    file = tmp_path / "k-ablation.yaml"
    file.write_text("seed: 1\ncorpus: {source: ., max_documents: 5}\n")
    own, other = folder.with_name("k-ablation-1111111111111111"), folder
    for path, overrides in ((own, []), (other, ["seed=2"])):
        path.mkdir(parents=True)
        save_study(path, resolve_study(str(file), overrides))
        (path / "trials.json").write_text('[{"number": 0, "state": "complete"}]')
    driver = Driver(other)
    driver.tell(course(4).start())
    assert choose(tmp_path, "k-ablation") == (other, [own.name])
    assert choose(tmp_path, str(file)) == (own, [other.name]), "the other is at work, with an override"
    driver.recording.close()
    assert choose(tmp_path, str(file)) == (own, [])
    assert studies_called(str(file), [other]) == [other], "with overrides, where there is none without"
    file.write_text("seed: 2\ncorpus: {source: ., max_documents: 5}\n")
    assert choose(tmp_path, str(file)) == (other, [])
    for refused in ("extra_stages: [{kind: of_a_package_that_is_gone}]\n", "no_such_setting: 1\n"):
        file.write_text(refused)
        assert studies_called(str(file), [own, other]) == [own, other], "by its name, as it may have been run before"


def test_of_a_driver_that_is_gone_nothing_runs(course: Course, tmp_path: Path, folder: Path) -> None:
    study, driver = course(4), Driver(folder)
    driver.tell([*study.start(), *study.end(0), *study.run(2)])
    wait_for(lambda: poll(folder, tmp_path).view.running)
    at_work = poll(folder, tmp_path).view
    driver.tell([events.StudyStopping("Ctrl-C")])
    driver.recording.close(KeyboardInterrupt())
    view = poll(folder, tmp_path).view
    assert (view.running, view.stopping, view.remaining_s) == ((), "", None)
    assert "running" not in view.stages
    assert view.stages["queued"] == at_work.stages["queued"] + at_work.stages["running"]
    assert {trial.state for trial in at_work.trials} == {"complete", "running", "waiting"}
    assert {trial.state for trial in view.trials} == {"complete", "waiting"}
    code, text = watch(tmp_path, "--once")
    assert code == 1, "as without --once"
    assert "Stopping" not in text
    assert "Running" not in text
    code, text = watch(tmp_path, "--once", "--json")
    assert code == 1
    assert json.loads(text)["running"] == []


def test_another_study_at_work_is_watched_as_is_said(course: Course, tmp_path: Path, folder: Path) -> None:
    both = [folder, tmp_path / "studies" / "heads-fedcba9876543210"]
    for one in both:
        _at_work(course, one)
    _, said = watch(tmp_path, "--once")
    named = re.search(r"^(\S+); others: (\S+) \((calm-bench watch NAME .+)\)$", said, re.MULTILINE)
    assert named is not None
    shown, other, command = named.groups()
    assert {shown, other} == {one.name for one in both}
    done = CliRunner().invoke(app, [*shlex.split(command.replace("NAME", other))[1:], "--once"])
    assert done.exit_code == 0
    assert done.output.startswith("k-ablation: 0 of 4 trials done")


def test_a_record_that_cannot_be_read_is_passed_over(tmp_path: Path, folder: Path) -> None:
    (folder / FOLDER).mkdir(parents=True)
    (folder / "trials.json").write_text('[{"number": 0, "state": "open"}]')
    for name, text in (("a", "{"), ("b", '{"driver": {}}'), ("c", '"' + "x" * 10)):
        (folder / FOLDER / f"{name}.json").write_text(text)
    watched = poll(folder, tmp_path)
    assert watched.stand == "left"
    assert watched.note.endswith(f"calm-bench run k-ablation --store {tmp_path} continues")


def test_a_disk_that_refuses_does_not_disturb_the_study(course: Course, folder: Path) -> None:
    driver = Driver(folder)
    (folder / FOLDER).write_text("in the way")
    driver.tell(course(4).start())
    driver.recording.close()


def test_nothing_is_written_while_nothing_happens(course: Course, folder: Path) -> None:
    driver = Driver(folder)
    driver.tell(course(4).start())
    # Half a record may be there for a moment.
    (path,) = (folder / FOLDER).glob("[!.]*")
    told = driver.tracker.view().stages
    wait_for(lambda: _record(path).view.stages == told)
    # Three heartbeats later it is the same file with a younger date.
    inode, touched = path.stat().st_ino, path.stat().st_mtime_ns
    wait_for(lambda: path.stat().st_mtime_ns > touched)
    assert path.stat().st_ino == inode
    driver.recording.close()


def _record(path: Path) -> Record:
    record = read_record(path)
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("run mine.yaml --store old --local", "run mine.yaml --store {here} --local"),
        ("run mine.yaml --store=old seed=1", "run mine.yaml --store {here} seed=1"),
        ("run mine.yaml", "run mine.yaml --store {here}"),
        ("run mine.yaml --store 'a store'", "run mine.yaml --store 'a store'"),
        ("run mine.yaml execution.store=old", "run mine.yaml execution.store=old"),
    ],
)
def test_the_command_names_the_store_where_it_is_now(
    typed: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that was moved while its study was paused: the old command would begin another at the old place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["calm-bench", *shlex.split(typed)])
    store = tmp_path / "a store"
    driver = Driver(store / "studies" / "mine-0123456789abcdef")
    driver.tell([events.StudyStarted("mine", "ab", driver.folder, 4)])
    driver.recording.close(KeyboardInterrupt())
    assert poll(driver.folder, store).command == "calm-bench " + named.format(here=shlex.quote(str(store)))
    store.rename(tmp_path / "moved")
    assert "is gone: --store says where" in poll(driver.folder, store).note
