from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from calm_bench.caches import VARIABLE, CacheError, settle_caches, user_caches


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    # So that it is put back, whatever the code under test does to it.
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def test_a_home_that_can_be_written_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_caches() == tmp_path / ".cache"
    settle_caches()
    assert VARIABLE not in os.environ


def test_what_is_set_is_used_unless_it_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "/somewhere")
    assert user_caches() == Path("/somewhere")
    monkeypatch.setenv(VARIABLE, "somewhere")
    assert user_caches() == tmp_path / ".cache"


@pytest.mark.parametrize("home", ["/proc", "/dev/null", "/proc/nowhere"])
def test_without_a_home_that_can_be_written_libraries_find_a_private_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home)
    settle_caches()
    folder = temporary / f"calm-bench-{os.getuid()}"
    assert os.environ[VARIABLE] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert user_caches() == folder


def test_a_folder_that_others_can_write_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc")
    folder = temporary / f"calm-bench-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(CacheError, match=VARIABLE):
        user_caches()
    folder.rmdir()
    (temporary / "theirs").mkdir()
    folder.symlink_to(temporary / "theirs")
    with pytest.raises(CacheError, match=VARIABLE):
        user_caches()
