"""Which file a name of one's own code stands for: the one that Python imports, and none of the same name elsewhere."""

from __future__ import annotations

import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from calm_bench.loaded_code import ChangedCode
from calm_bench.own_code import import_own
from calm_bench.source_digest import AmbiguousModule, code_digest, imported_files, module_file, own_roots, source_digest

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which is not on the path, as that of a command."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", ["types", "random", "logging", "evals"])
def test_a_module_of_a_package_may_be_called_as_one_of_the_standard_library(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(here)
    write(here, "own_package/__init__.py", "")
    write(here, "own_package/heads.py", f"from .{name} import SCALE\n")
    constants = write(here, f"own_package/{name}.py", "SCALE = 1.0\n")
    before = code_digest("own_package.heads")
    constants.write_text("SCALE = 2.0\n")
    assert code_digest("own_package.heads") != before


def test_the_path_comes_before_the_working_directory(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = write(tmp_path / "library", "own_twice.py", "VALUE = 'of the library'\n")
    write(here, "own_twice.py", "VALUE = 'beside'\n")
    monkeypatch.syspath_prepend(imported.parent)
    before = code_digest("own_twice")
    assert module_file("own_twice", here) == imported
    assert import_own("own_twice").VALUE == "of the library"
    del sys.modules["own_twice"]
    imported.write_text("VALUE = 'of the library, edited'\n")
    assert code_digest("own_twice") != before


def test_what_is_installed_first_is_not_ones_own(here: Path) -> None:
    write(here, "yaml.py", "VALUE = 1\n")
    assert module_file("yaml", here) is None
    assert imported_files(write(here, "own_head.py", "import yaml\n")) == [here / "own_head.py"]


def test_a_module_called_as_an_installed_one_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a notebook it comes first; workers look there last."""
    monkeypatch.syspath_prepend(here)
    for target in ("sqlitedict", "own_user"):
        write(here, "own_user.py", "import sqlitedict\n")
        write(here, "sqlitedict.py", "VALUE = 1\n")
        with pytest.raises(AmbiguousModule, match=r"is .*here/sqlitedict\.py here, and the installed .*site-pack"):
            code_digest(target)
    # As the message says.
    (here / "sqlitedict.py").rename(here / "own_dict.py")
    write(here, "own_user.py", "import own_dict\n")
    assert imported_files(here / "own_user.py") == [here / "own_user.py", here / "own_dict.py"]


def test_a_module_imported_from_a_folder_that_was_left_is_not_taken_for_another(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a notebook the working directory is the first place of the path, and it may change."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    write(here, "own_left.py", "VALUE = 'first'\n")
    assert import_module("own_left").VALUE == "first"
    before = code_digest("own_left")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert code_digest("own_left") == before, "it is still what this process has imported"
    assert str(here) in own_roots(), "and what its workers find"
    write(tmp_path / "there", "own_left.py", "VALUE = 'second'\n")
    for use in (code_digest, import_own):
        with pytest.raises(ChangedCode, match=r"own_left was imported from .*here.*there/own_left\.py comes first now"):
            use("own_left")
    # As the message says.
    (tmp_path / "there" / "own_left.py").rename(tmp_path / "there" / "own_other.py")
    assert (import_own("own_left").VALUE, import_own("own_other").VALUE) == ("first", "second")


def test_a_script_is_the_one_that_was_started(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(here)
    started = write(here.parent, "study.py", "")
    write(here, "__main__.py", "")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(started), raising=False)
    assert code_digest("__main__") == source_digest(started)


def test_code_in_an_archive_is_known_by_its_content(tmp_path: Path) -> None:
    digests = []
    for value in (1, 2):
        archive = tmp_path / f"library{value}.zip"
        with zipfile.ZipFile(archive, "w") as written:
            written.writestr("own_zipped/__init__.py", "")
            written.writestr("own_zipped/values.py", f"VALUE = {value}\n")
        sys.path.append(str(archive))
        assert str(archive) in own_roots()
        user = write(tmp_path, "own_user.py", "from own_zipped.values import VALUE\n")
        digests.append((code_digest("own_zipped.values"), source_digest(user)))
        imported = import_own("own_zipped.values")
        assert vars(imported)["VALUE"] == value
        assert code_digest("own_zipped.values") == digests[-1][0]
        sys.path.remove(str(archive))
        del sys.modules["own_zipped"], sys.modules["own_zipped.values"]
    assert digests[0][0] != digests[1][0]
    assert digests[0][1] != digests[1][1], "of who imports it too"
