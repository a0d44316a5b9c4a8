from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from calm_bench.atomic import remove_unfinished
from calm_bench.file_time import file_time


def test_it_is_the_file_systems_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert abs(file_time(tmp_path) - now) < 60
    assert list(tmp_path.iterdir()) == []
    assert file_time(tmp_path / "none") == 0.0


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
def test_a_clock_that_is_off_removes_nobodys_file(
    tmp_path: Path, ahead_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".new.json.abcdefgh").write_text("")
    (tmp_path / ".old.json.abcdefgh").write_text("")
    now = time.time()
    os.utime(tmp_path / ".old.json.abcdefgh", (now - 120, now - 120))
    monkeypatch.setattr(time, "time", lambda: now + ahead_s)
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".new.json.abcdefgh"]
