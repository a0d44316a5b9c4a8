"""Folders that were moved or removed while work went on in them are not made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from calm_bench import kept_folders
from calm_bench.atomic import write_bytes
from calm_bench.kept_folders import (
    FolderGone,
    check_kept,
    is_gone,
    keeping,
    keeping_opened,
    make_folder,
    opened,
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_folders, "MOVING_S", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store" / "studies").mkdir(parents=True)
    return tmp_path / "store"


def move(store: Path) -> None:
    store.rename(store.with_name("new place"))


def move_and_make_another(store: Path) -> None:
    move(store)
    store.mkdir()


@pytest.mark.parametrize("act", [move, move_and_make_another, shutil.rmtree])
@pytest.mark.parametrize("below", ["", "work", "work/one/checkpoints"])
def test_what_has_gone_is_not_made_again(store: Path, act: Callable[[Path], None], below: str) -> None:
    with keeping(store, "studies"):
        make_folder(store / "leases")
        act(store)
        for attempt in (lambda: make_folder(store / below), lambda: write_bytes(store / below / "file", b"text")):
            if not (act is move_and_make_another and below == ""):
                with pytest.raises(FolderGone):
                    attempt()
        with pytest.raises(FolderGone, match="removed" if act is shutil.rmtree else "--store '.*/new place'"):
            check_kept(store)
        assert is_gone(store)
    assert not store.exists() or not [path for path in store.iterdir() if path.name != "file"]
    # A thread of what has ended may still write.
    if act is not move_and_make_another:
        with pytest.raises(FolderGone):
            make_folder(store / "studies")
    with keeping(store, "studies"):
        make_folder(store / "studies")
        assert not is_gone(store)
    make_folder(store / "studies" / "one")


def test_it_may_be_made_at_first(tmp_path: Path) -> None:
    store = tmp_path / "new" / "store"
    with keeping(store, "studies"):
        check_kept(store)
        make_folder(store / "leases")
        make_folder(store / "studies" / "one")
        check_kept(store)
        move(store)
        with pytest.raises(FolderGone, match=r"has been moved to .*/new place while work went on"):
            make_folder(store / "leases")
    assert not store.exists()


def test_a_link_at_the_old_place_leads_on(store: Path) -> None:
    with keeping(store, "studies"):
        move(store)
        store.symlink_to(store.with_name("new place"))
        check_kept(store)
        make_folder(store / "work" / "one")
    assert (store.with_name("new place") / "work" / "one").is_dir()


def test_whatever_fails_in_it_is_told_by_its_cause(store: Path) -> None:
    def work(after: Callable[[Path], None]) -> None:
        with keeping(store, "studies"):
            after(store)
            (store / "studies" / "trials.json").read_text()

    with pytest.raises(FileNotFoundError):
        work(lambda store: None)
    with pytest.raises(FolderGone, match=r"has been moved to .*, in Python store=") as caught:
        work(move)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_of_a_command_each_store_that_it_opens_stays(store: Path) -> None:
    opened(store, "studies")
    with keeping_opened():
        opened(store, "studies")
        with keeping(store, "studies"):
            pass
        move(store)
        assert is_gone(store)
    with keeping_opened():
        opened(store, "studies")
        assert not is_gone(store)
