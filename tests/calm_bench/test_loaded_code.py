"""Code that changed after it was imported is not run under the identity of what it is now."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from calm_bench.loaded_code import ChangedCode, check_loaded
from calm_bench.own_code import import_own
from calm_bench.source_digest import code_digest

HELPERS = "from loaded_constants import SCALE\n\ndef draw():\n    return SCALE\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "loaded_head.py").write_text(HELPERS)
    (tmp_path / "loaded_constants.py").write_text("SCALE = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("loaded_head", "loaded_constants"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["loaded_head.py", "loaded_constants.py"])
def test_an_edit_after_the_import_is_told(folder: Path, name: str) -> None:
    assert import_own("loaded_head").draw() == 1
    before = code_digest("loaded_head")
    written = (folder / name).read_text()
    (folder / name).write_text(written + "MORE = 2\n")
    for ask in (code_digest, import_own):
        with pytest.raises(ChangedCode, match=rf"{name} has changed since.*restart the kernel"):
            ask("loaded_head")
    (folder / name).write_text(written)
    assert code_digest("loaded_head") == before
    assert import_own("loaded_head").draw() == 1


def test_code_that_somebody_else_imported(folder: Path) -> None:
    """Before anybody asked for its digest: functions tell."""
    importlib.import_module("loaded_head")
    (folder / "loaded_head.py").write_text(HELPERS.replace("return SCALE", "return 2 * SCALE"))
    with pytest.raises(ChangedCode, match=r"loaded_head\.py"):
        code_digest("loaded_head")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("class A:\n    @staticmethod\n    def f():\n        return 1\n", "class A:\n    pass\n"),
        ("class A:\n    @property\n    def f(self):\n        return 1\n", "("),
        ("def f():\n    return 1\n", "def f():\n    return lambda: 1\n"),
    ],
    ids=["removed", "no Python", "inner function"],
)
def test_whatever_was_edited(folder: Path, before: str, after: str) -> None:
    file = folder / "loaded_constants.py"
    file.write_text(before)
    importlib.import_module("loaded_constants")
    file.write_text(after)
    with pytest.raises(ChangedCode):
        check_loaded([file])


def test_what_was_imported_again_is_what_it_is(folder: Path) -> None:
    module = import_own("loaded_constants")
    (folder / "loaded_constants.py").write_text("SCALE = 20\n")
    importlib.reload(module)
    assert code_digest("loaded_constants") is not None
    assert import_own("loaded_constants").SCALE == 20


def test_code_that_decorators_made_is_not_of_the_file(folder: Path) -> None:
    (folder / "loaded_constants.py").write_text(
        "import functools\nfrom dataclasses import dataclass\n\n\ndef wrap(f):\n    @functools.wraps(f)\n"
        "    def inner():\n        return f()\n    return inner\n\n\n@wrap\ndef f():\n    return 1\n\n\n"
        "@functools.lru_cache\ndef g():\n    return f()\n\n\n@dataclass\nclass A:\n    a: int = 1\n"
    )
    importlib.import_module("loaded_constants")
    check_loaded([folder / "loaded_constants.py"])
    assert import_own("loaded_constants").A().a == 1
