"""Where nothing can be made every command with a place to write to names it and the way out, before it prints."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calm_bench.atomic import refuse_unwritable, write_bytes
from calm_bench.errors import FAILED
from calm_bench.kept_folders import make_folder
from pipelines.app import cli
from pipelines.common.canvas import canvas, write
from pipelines.results.entry import Entry
from pipelines.results.leaderboard import Leaderboard
from pipelines.scoring.exporting import export_model
from pipelines.scoring.models import TrainedModel
from pipelines.store.opening import open_store

NOTHING = r"nothing can be made there: give another place \(--store, --output, --picture, --rows\), or have its owner"
A_FILE = r"not a directory: a file stands where a folder belongs: move it away, or name another place$"


@pytest.fixture
def rows(make_entry: Callable[..., Entry], tmp_path: Path) -> str:
    path = tmp_path / "rows.json"
    path.write_text(Leaderboard([make_entry()]).to_json())
    return str(path)


def told(*words: str) -> str:
    """What a command says that ends with an error of the machine; nothing else was printed."""
    done = CliRunner().invoke(cli.app, words)
    assert done.stdout == ""
    assert isinstance(done.exception, OSError)
    message, code = cli._told(done.exception)
    assert code == FAILED
    return message


@pytest.mark.parametrize(
    "words",
    [
        ["leaderboard", "--merge", "ROWS", "--picture", "PLACE.svg"],
        ["report", "--merge", "ROWS", "--output", "PLACE.html"],
        ["probe", "nothing", "--picture", "PLACE.svg"],
        ["context-sweep", "nothing", "--picture", "PLACE.svg"],
        ["run", "smoke", "--local", "--quiet", "--store", "PLACE.svg"],
    ],
)
def test_a_command_names_the_place_before_it_computes(words: list[str], rows: str) -> None:
    words = [rows if word == "ROWS" else word for word in words]
    place = next(word for word in words if word.startswith("PLACE"))
    named = place.replace("PLACE", "/proc/x")
    assert re.match(rf"{re.escape(named)}: {NOTHING}", told(*(word.replace("PLACE", "/proc/x") for word in words)))
    if "--output" in words or "--store" in words:
        assert re.search(A_FILE, told(*(word.replace("PLACE", f"{rows}/x") for word in words)))


def test_ways_out_of_a_name_are_ways_out(rows: str, tmp_path: Path) -> None:
    """Of names that are too long, of a file in the place of a folder, and of a folder in that of a file."""
    report = ["report", "--merge", rows, "--output"]
    output = tmp_path / "page.html"
    assert told(*report, f"{tmp_path}/{'x' * 300}.html").endswith(
        "no file has so long a name: if a place is meant (--store, --output, --picture, --rows), give a shorter one"
    )
    assert CliRunner().invoke(cli.app, [*report, str(output)]).exit_code == 0
    output.rename(tmp_path / "folder")
    below = tmp_path / "folder" / "page.html"
    assert re.search(A_FILE, told(*report, str(below)))
    (tmp_path / "folder").rename(output)
    below.parent.mkdir()
    assert CliRunner().invoke(cli.app, [*report, str(below)]).exit_code == 0
    assert below.read_bytes() == output.read_bytes()
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(IsADirectoryError) as refused:
        write_bytes(place, b"it")
    assert cli._told(refused.value)[0].endswith(": a folder stands where a file belongs: move it away")
    place.rename(tmp_path / "away")
    write_bytes(place, b"it")


def test_an_export_names_the_folder(tmp_path: Path) -> None:
    """Before the model is read: there is none."""
    model, store = TrainedModel(tmp_path / "none"), open_store(str(tmp_path))
    with pytest.raises(PermissionError, match=r"nothing can be made there: '/proc/x'"):
        export_model("none", model, store, Path("/proc/x"))


@pytest.mark.parametrize("make", [lambda path: write_bytes(path, b"it"), refuse_unwritable, make_folder])
def test_what_the_system_says_is_told_in_words(make: Callable[[Path], None], tmp_path: Path) -> None:
    for place in ("/proc/x", "/proc/x/y"):
        with pytest.raises(PermissionError, match="nothing can be made there"):
            make(Path(place))
    file = tmp_path / "file"
    file.touch()
    for under in (file / "x", file / "x" / "y"):
        with pytest.raises(NotADirectoryError):
            make(under if make is not make_folder else under.parent)
    make(tmp_path / "new" / "file")


def test_no_file_takes_the_place_of_a_device_or_a_pipe(tmp_path: Path) -> None:
    """Root would have replaced /dev/null on the whole machine (which is not tried here)."""
    said = "it is a device or a pipe, which no file may replace"
    for device in ("/dev/full", "/dev/null", "/dev/stdout", "/proc/self/fd/1"):
        with pytest.raises(PermissionError, match=said):
            refuse_unwritable(Path(device))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(PermissionError, match=said) as refused:
        write_bytes(pipe, b"it")
    assert (refused.value.errno, refused.value.filename) == (errno.EACCES, str(pipe))
    assert pipe.is_fifo()


def test_a_picture_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk names none."""
    with canvas(1, 1) as figure:
        monkeypatch.setattr(figure, "savefig", lambda *_, **__: Path("/dev/full").write_bytes(b"it"))
        with pytest.raises(OSError, match=r"No space left on device: '.*/it\.svg'"):
            write(figure, tmp_path / "it.svg")
    assert list(tmp_path.iterdir()) == []
