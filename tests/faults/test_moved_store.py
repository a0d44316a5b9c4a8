"""A store that is moved, removed or replaced while a study runs in it: one clear error, nothing new at its old place,
nothing lost at the new one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from calm_bench.kept_folders import FolderGone
from pipelines.execution.local_executor import LocalExecutor
from pipelines.search.drive import run_study
from pipelines.store.store import Store
from pipelines.study.config import Study
from tests.faults.conftest import finish
from tests.faults.small_study import Outcome, begun, start_run, wait_for

pytestmark = pytest.mark.slow


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def move(root: Path) -> None:
    root.rename(root.with_name("moved"))


def move_and_make_another(root: Path) -> None:
    move(root)
    root.mkdir()


@pytest.mark.parametrize("act", [move, pytest.param(move_and_make_another, marks=pytest.mark.long)])
def test_the_driver_says_where_the_store_is_and_the_study_goes_on_there(
    act: Callable[[Path], None], study: Study, tmp_path: Path, undisturbed: Outcome
) -> None:
    """In a process that lives on, as a notebook's."""
    store, moved = Store(tmp_path / "store"), Store(tmp_path / "moved")
    executor = LocalExecutor(store, "cpu")

    def disturb() -> None:
        wait_for(lambda: begun(store, "language_model"), "a language model has a checkpoint")
        act(store.root)

    thread = threading.Thread(target=disturb)
    thread.start()
    with pytest.raises(FolderGone, match=rf"{store.root} has been moved to {moved.root} .*--store {moved.root}"):
        run_study(study, store, executor)
    thread.join()
    executor.close()
    wait_for(lambda: not [one for one in threading.enumerate() if one.name == "stages"], "the stage has ended")
    assert (names(store.root) if store.root.exists() else []) == []
    assert moved.leases.held() == {}, "nobody waits for a process that lives on"
    assert finish(study, moved) == undisturbed


def run_disturbed(study: Study, root: Path, *arguments: str) -> tuple[int, list[str]]:
    """``calm-bench run`` whose store is moved in the middle: its exit code and what it said."""
    (root.parent / "faults.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    driver = start_run("faults.yaml", store := Store(root), *arguments, folder=root.parent)
    wait_for(lambda: begun(store, "language_model"), "a language model has a checkpoint", of=driver)
    started = psutil.Process(driver.pid).children(recursive=True)
    move(root)
    said, _ = driver.communicate(timeout=120)
    _, left = psutil.wait_procs(started, timeout=30)
    assert not left
    return driver.returncode, said.splitlines()


@pytest.mark.long
def test_the_command_ends_with_one_message(study: Study, tmp_path: Path) -> None:
    tracked = study.model_copy(update={"tracking": study.tracking.model_copy(update={"enabled": True})})
    code, said = run_disturbed(tracked, tmp_path / "store", "--local", "--quiet")
    assert code == 1
    (line,) = said
    assert line.startswith(
        f"calm-bench: {tmp_path / 'store'} has been moved to {tmp_path / 'moved'} while work went on"
    )
    assert not (tmp_path / "store").exists()


@pytest.mark.long
def test_workers_of_ray_end_too(study: Study, tmp_path: Path, undisturbed: Outcome) -> None:
    code, said = run_disturbed(study, tmp_path / "store")
    assert code == 1
    assert f"has been moved to {tmp_path / 'moved'}" in said[-1]
    assert not (tmp_path / "store").exists()
    assert finish(study, Store(tmp_path / "moved")) == undisturbed
