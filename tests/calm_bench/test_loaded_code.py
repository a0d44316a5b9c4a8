"""Code that changed after it was imported is not run under the identity of what it is now."""

from __future__ import annotations

import gc
import importlib
import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from calm_bench.loaded_code import ChangedCode, check_loaded
from calm_bench.own_code import import_own
from calm_bench.source_digest import code_digest, own_roots

HELPERS = "from loaded_constants import SCALE\n\ndef draw():\n    return SCALE\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "loaded_head.py").write_text(HELPERS)
    (tmp_path / "loaded_constants.py").write_text("SCALE = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("loaded_head", "loaded_constants", "slow_to_import"):
        sys.modules.pop(name, None)


@pytest.fixture
def others_import(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules are imported whenever Python makes something that it may have to collect, as threads may at any time."""
    count = itertools.count()

    def import_one(phase: str, info: dict[str, int]) -> None:
        monkeypatch.setitem(sys.modules, f"imported_meanwhile_{next(count)}", ModuleType("imported_meanwhile"))

    before = gc.get_threshold()
    gc.callbacks.append(import_one)
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)
    gc.callbacks.remove(import_one)


def test_what_others_import_meanwhile_is_no_error(folder: Path, others_import: None) -> None:
    check_loaded([folder / "loaded_head.py"])
    assert str(folder) in own_roots()


def test_what_another_thread_is_still_importing_has_not_changed(folder: Path) -> None:
    """The constants below the line that it had come to were missing, which passed for an edit."""
    begun, goes_on = threading.Event(), threading.Event()
    (folder / "slow_to_import.py").write_text("import slow_pause\nslow_pause.wait()\nLIMIT = 3\n")
    pause = ModuleType("slow_pause")

    def wait() -> None:
        begun.set()
        assert goes_on.wait(60)

    pause.wait = wait  # type: ignore[attr-defined]
    sys.modules["slow_pause"] = pause
    thread = threading.Thread(target=importlib.import_module, args=["slow_to_import"])
    thread.start()
    try:
        assert begun.wait(60)
        threading.Timer(0.5, goes_on.set).start()
        check_loaded([folder / "slow_to_import.py"])
        assert sys.modules["slow_to_import"].LIMIT == 3
    finally:
        goes_on.set()
        thread.join()
        del sys.modules["slow_pause"]


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


CONSTANTS = """\
from enum import Enum

SCALE = 1
RATES: tuple[float, ...] = (0.5, 1.0)
SIZES = [1, 2]
HALF = SCALE / 2
count = 0


class Colour(Enum):
    RED = 1


class Head:
    width = 3
    made = 0

    def __init__(self, depth=4, *, alpha=1.0):
        self.width = depth
        Head.made += 1


def step():
    global count
    count += 1
"""


EDITS = [
    ("SCALE = 1", "SCALE = 2"),
    ("SCALE = 1", "SCALE = 1.0"),
    ("SCALE = 1\n", "SCALE = 1\nMORE = 'x'\n"),
    ("(0.5, 1.0)", "(0.5, 2.0)"),
    ("width = 3", "width = 8"),
    ("depth=4", "depth=5"),
    ("alpha=1.0", "alpha=1.5"),
]
ONLY_IN_BYTECODE = [("[1, 2]", "[1, 2, 3]"), ("SCALE / 2", "SCALE / 3")]


@pytest.mark.parametrize(
    ("was", "now", "keeps_bytecode"),
    [(*edit, keeps) for edit in EDITS for keeps in (True, False)] + [(*edit, True) for edit in ONLY_IN_BYTECODE],
)
def test_an_edit_of_a_constant_before_anybody_asked(
    folder: Path, was: str, now: str, keeps_bytecode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", not keeps_bytecode)
    file = folder / "loaded_constants.py"
    file.write_text(CONSTANTS)
    importlib.invalidate_caches()
    importlib.import_module("loaded_constants")
    file.write_text(CONSTANTS.replace(was, now))
    with pytest.raises(ChangedCode, match=r"loaded_constants\.py has changed"):
        check_loaded([file])


@pytest.mark.parametrize("keeps_bytecode", [True, False])
def test_what_code_itself_changes_is_no_edit(
    folder: Path, keeps_bytecode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", not keeps_bytecode)
    (folder / "loaded_constants.py").write_text(CONSTANTS)
    importlib.invalidate_caches()
    module = importlib.import_module("loaded_constants")
    module.step()
    module.SIZES.append(3)
    module.Head()
    check_loaded([folder / "loaded_constants.py"])


def test_bytecode_that_could_not_be_kept_tells_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be of another process, older than what this one has imported."""
    file = folder / "loaded_constants.py"
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file.write_text("SIZES = [1, 2]\n")
    importlib.import_module("loaded_constants")
    del sys.modules["loaded_constants"]
    file.write_text("SIZES = [1, 2, 3]\n")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.import_module("loaded_constants")
    check_loaded([file])
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
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
