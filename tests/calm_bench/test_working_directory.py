"""A working directory that somebody has removed, or that may not be searched."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import calm_bench as cb
from calm_bench.source_digest import imported_files, own_roots
from calm_bench.working_directory import (
    NOWHERE,
    WorkingDirectoryGone,
    check_working_directory,
    is_removed,
    leave_removed,
    working_directory,
)


@pytest.fixture
def removed(tmp_path: Path) -> Iterator[Path]:
    """Its name: this process works in it."""
    before, folder = Path.cwd(), tmp_path / "here"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()
    yield folder
    os.chdir(before)


def test_it_has_its_name_and_is_left_by_who_works_on(removed: Path) -> None:
    assert is_removed()
    assert working_directory() == removed
    with pytest.raises(WorkingDirectoryGone, match=r"has been removed: go to another \(cd, in Python os\.chdir\)"):
        check_working_directory()
    assert leave_removed()
    assert os.getcwd() == NOWHERE
    assert not leave_removed()
    check_working_directory()


def test_code_of_ones_own_is_found_without_it(removed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "removed_head.py").write_text("import removed_other\n")
    (tmp_path / "removed_other.py").write_text("")
    monkeypatch.setattr(sys, "path", ["", "relative", str(tmp_path), *sys.path])
    assert imported_files(tmp_path / "removed_head.py") == [
        (tmp_path / name).resolve() for name in ("removed_head.py", "removed_other.py")
    ]
    assert str(tmp_path) in own_roots()


def test_a_folder_that_may_not_be_searched_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does. To root nothing is forbidden, so here it is a name that no folder may have."""
    (tmp_path / "searched_head.py").write_text("import searched_other\n")
    (tmp_path / "searched_other.py").write_text("")
    monkeypatch.setattr(sys, "path", [f"/{'n' * 300}", str(tmp_path), *sys.path])
    assert len(imported_files(tmp_path / "searched_head.py")) == 2


def test_a_study_from_python_is_refused_at_once(removed: Path) -> None:
    study = cb.Study.from_yaml("smoke", store=removed.parent / "store")
    for act in (study.plan, study.run):
        with pytest.raises(WorkingDirectoryGone):
            act()
