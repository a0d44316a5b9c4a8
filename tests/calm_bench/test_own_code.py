from __future__ import annotations

import os
import py_compile
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from calm_bench.own_code import import_own, refresh_bytecode

pytestmark = pytest.mark.quick


def write(file: Path, value: int) -> None:
    file.write_text(f"VALUE = {value}\n")
    os.utime(file, (1, 1))  # as in an image whose times are all alike


@pytest.mark.parametrize("by_another", [False, True], ids=["itself", "imported"])
def test_what_runs_is_what_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_another: bool) -> None:
    name = f"own_code_{by_another}"
    changed = tmp_path / ("own_constants.py" if by_another else f"{name}.py")
    if by_another:
        (tmp_path / f"{name}.py").write_text("from own_constants import VALUE\n")
    write(changed, 1)
    py_compile.compile(str(changed))
    write(changed, 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert import_own(name).VALUE == 2


def test_a_folder_without_bytecode_stays_so_and_what_cannot_be_compiled_is_left(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("VALUE = (\n")
    refresh_bytecode(file)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.py"]
    bytecode = Path(cache_from_source(str(file)))
    bytecode.parent.mkdir()
    bytecode.write_bytes(b"")
    refresh_bytecode(file)
    assert bytecode.read_bytes() == b""
