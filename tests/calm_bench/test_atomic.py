"""What a killed process leaves of a file."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from calm_bench.atomic import remove_unfinished, write_bytes, write_with


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


def test_who_is_out_of_space_is_told_where(tmp_path: Path) -> None:
    """The system names no file, and safetensors the system's error in words alone."""
    path = tmp_path / "it.bin"
    with pytest.raises(OSError, match="No space left") as told:
        write_with(path, lambda _: Path("/dev/full").write_bytes(b"content"))
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(path))
    assert str(told.value).endswith(f"'{path}'"), "and nothing of another file"

    def serialize(_: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError, match=r"it\.bin") as told:
        write_with(path, serialize)
    assert told.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
