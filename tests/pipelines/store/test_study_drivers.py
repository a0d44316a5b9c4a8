"""Drivers of one study keep its trials in a journal or in a database, and are told who keeps them elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.store.errors import StudyBusy
from pipelines.store.store import Store

NAME = "tiny-1"
DRIVE = """
import sys
from pipelines.store.store import Store
with Store(sys.argv[1]).studies.open(sys.argv[2], None if sys.argv[3] == "journal" else sys.argv[3]):
    print("driving", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("first", "second"), [("journal", "database"), ("database", "journal")])
def test_a_journal_and_a_database_are_two_searches(first: str, second: str, tmp_path: Path) -> None:
    one, other = Store(tmp_path), Store(tmp_path)
    with (
        one.studies.open(NAME, None if first == "journal" else first),
        pytest.raises(
            StudyBusy, match=rf"^process \d+ on .* runs this study in {tmp_path} with its trials in a {first}: "
        ),
        other.studies.open(NAME, None if second == "journal" else second),
    ):
        pass
    with one.studies.open(NAME, None if second == "journal" else second), other.studies.open("tiny-11"):
        pass


def test_two_databases_are_two_searches(tmp_path: Path) -> None:
    one, other = Store(tmp_path), Store(tmp_path)
    with (
        one.studies.open(NAME, "1234"),
        pytest.raises(StudyBusy, match="with its trials in another database: wait for it"),
        other.studies.open(NAME, "5678"),
    ):
        pass
    with other.studies.open(NAME, "5678"):
        pass


@pytest.mark.parametrize("database", [None, "1234"])
def test_drivers_that_share_a_folder_share_either(database: str | None, tmp_path: Path) -> None:
    with Store(tmp_path).studies.open(NAME, database), Store(tmp_path).studies.open(NAME, database) as folder:
        assert folder == tmp_path / "studies" / NAME
    assert [path.name for path in (tmp_path / "leases").iterdir()] == [".guard"]


def test_the_database_comes_first_in_an_object_store_too(host: Callable[..., Store]) -> None:
    with (
        host("a").studies.open(NAME, "1234"),
        pytest.raises(StudyBusy, match="with its trials in a database: wait for it"),
        host("b").studies.open(NAME),
    ):
        pass
    with host("b").studies.open(NAME):
        pass


def test_a_killed_driver_keeps_nobody_out_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVE, str(tmp_path), NAME, "database"]
    killed = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "driving\n"
    with pytest.raises(StudyBusy, match=f"^process {killed.pid} on "), Store(tmp_path).studies.open(NAME):
        pass
    killed.kill()
    killed.wait()
    with Store(tmp_path).studies.open(NAME):
        pass
    assert [path.name for path in (tmp_path / "leases").iterdir()] == [".guard"]
