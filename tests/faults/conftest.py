"""The undisturbed outcome of the small study, and a store that must be clean in the end."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipelines.execution.executor import Executor
from pipelines.execution.local_executor import LocalExecutor
from pipelines.results.entry import entry_from
from pipelines.results.leaderboard import Leaderboard
from pipelines.search.drive import run_study
from pipelines.store.store import Store
from pipelines.study.config import Study
from tests.faults.small_study import STUDY, Outcome, comparable, left_behind, start_run, wait_for, weights


def finish(study: Study, store: Store, executor: Executor | None = None, listener: Any = None) -> Outcome:
    """Run the study to its end in this process, by ``executor`` or without Ray."""
    executor = executor or LocalExecutor(store, "cpu")
    try:
        outcomes = run_study(study, store, executor, listener)
    finally:
        executor.close()
    assert {outcome.state for outcome in outcomes} == {"complete"}, [outcome.error for outcome in outcomes]
    board = Leaderboard(entry_from(outcome, study) for outcome in outcomes)
    return Outcome(comparable(board.to_csv()), weights(store))


@pytest.fixture(scope="session")
def study() -> Study:
    return Study.model_validate(STUDY)


@pytest.fixture(scope="session")
def undisturbed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The reference: one run that nothing happened to."""
    outcome = finish(study, Store(tmp_path_factory.mktemp("undisturbed")))
    assert len(outcome.weights) == 3
    return outcome


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that must be clean and whole in the end, whatever happened to it."""
    # Other tests of this process keep a database server, a browser, or multiprocessing's resource tracker to its end.
    others = processes()
    store = Store(tmp_path / "store")
    yield store
    assert_nothing_is_left(store, others)


def assert_nothing_is_left(store: Store, others: Mapping[psutil.Process, str]) -> None:
    """No lease, no stop file, no half-written folder or file; every stage intact; no process but ``others``."""
    assert [path.name for path in (store.root / "leases").iterdir()] == [".guard"]
    assert left_behind(store) == []
    left: list[str] = []

    def nothing() -> bool:
        left[:] = [line for process, line in processes().items() if process not in others]
        return not left

    try:
        wait_for(nothing, "no process is left")
    except AssertionError as error:
        raise AssertionError(f"{error}; there are {left}") from None


def processes() -> dict[psutil.Process, str]:
    """The living processes that this one started, and theirs, by what they run."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process] = " ".join(process.cmdline()[:4])
    return found


@pytest.fixture
def command(store: Store, study: Study, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``calm-bench run`` on the study in a process group of its own, as a terminal does."""
    file = tmp_path / "faults.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        started.append(start_run(file, store, *arguments, folder=tmp_path))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
