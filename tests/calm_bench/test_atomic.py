"""What a killed process leaves of a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

from calm_bench.atomic import remove_unfinished, write_bytes


def test_what_is_old_and_unfinished_goes_and_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "table.csv", b"whole")
    names = (".table.csv.a1b2c3d4", ".table.csv.e5f6g7h8", ".guard")
    for name in names:
        (tmp_path / name).touch()
    long_ago = time.time() - 3600
    for name in ("table.csv", ".table.csv.a1b2c3d4", ".guard"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".guard", ".table.csv.e5f6g7h8", "table.csv"]
