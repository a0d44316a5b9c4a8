"""The content of files and folders is what stands there now, whatever their times say and wherever links lead."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from calm_bench import fingerprint
from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, corpus_dependencies, write_corpus
from calm_bench.fingerprint import content_digest, folder_identity
from calm_bench.source_digest import source_digest
from calm_bench.walk import files_below
from evals.task_identity import task_identity
from tests.evals.own_tasks import ROWS, write_rows, write_task

LONG_AGO = (1, 1)


def settled(path: Path) -> Path:
    """``path`` as an archive with times that are all alike leaves it."""
    os.utime(path, LONG_AGO)
    return path


@pytest.fixture(autouse=True)
def settle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", -60.0)


def rewrite(path: Path, old: str, new: str) -> None:
    """Change the content of ``path``, and neither its size nor its time."""
    assert len(old) == len(new)
    # The clock of files ticks every few milliseconds.
    time.sleep(0.02)
    path.write_text(path.read_text().replace(old, new))
    settled(path)


def test_a_file_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_text("one")
    before = content_digest(settled(path)), folder_identity(tmp_path)
    rewrite(path, "one", "two")
    assert content_digest(path) != before[0]
    assert folder_identity(tmp_path) != before[1]


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_S", 60.0)
    path = tmp_path / "a"
    path.write_text("one")
    status, before = path.stat(), content_digest(path)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    with path.open("w") as file:
        file.write("two")
    assert content_digest(path) != before


def test_data_of_tasks_and_code(tmp_path: Path) -> None:
    task = write_task(tmp_path)
    code = tmp_path / "head.py"
    code.write_text("SCALES = 'scales.txt'\n")
    (tmp_path / "scales.txt").write_text("1.5")
    for path in tmp_path.iterdir():
        settled(path)
    before = task_identity(str(task)).content, source_digest(code)
    rewrite(tmp_path / "mine.jsonl", '"answer": 1', '"answer": 0')
    rewrite(tmp_path / "scales.txt", "1.5", "2.5")
    assert task_identity(str(task)).content != before[0]
    assert source_digest(code) != before[1]


def test_a_corpus(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("first\n\nsecond\n")
    config = Corpus(source=str(settled(text)))
    before = corpus_dependencies(config)
    rewrite(text, "first", "other")
    assert corpus_dependencies(config) != before


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    shared, model = tmp_path / "shared", tmp_path / "model"
    for folder in (shared, model):
        folder.mkdir()
    (shared / "tokenizer.json").write_text("{}")
    (model / "config.json").write_text("{}")
    (model / "tokenizer").symlink_to(shared)
    (shared / "up").symlink_to(model)
    assert [path.relative_to(model).as_posix() for path in files_below(model)] == [
        "config.json",
        "tokenizer/tokenizer.json",
    ]
    before = folder_identity(model)
    (shared / "tokenizer.json").write_text('{"other": 1}')
    assert folder_identity(model) != before


def test_text_behind_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "b.txt").write_text("behind the link\n")
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("beside it\n")
    (folder / "more").symlink_to(tmp_path / "disk")
    config = Corpus(source=str(folder), validation_fraction=0, test_fraction=0)
    before = corpus_dependencies(config)
    assert write_corpus(config, tmp_path / "out").documents["train"] == 2
    (tmp_path / "disk" / "b.txt").write_text("another text\n")
    assert corpus_dependencies(config) != before
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    with pytest.raises(CorpusError, match=r"gone\.txt.*No such file"):
        corpus_dependencies(config)


def test_data_of_a_task_behind_a_link(tmp_path: Path) -> None:
    task = write_task(tmp_path)
    (tmp_path / "disk").mkdir()
    rows = write_rows(tmp_path / "disk" / "test.jsonl", ROWS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part").symlink_to(tmp_path / "disk")
    before = task_identity(f"{task}@{tmp_path / 'data'}").content
    write_rows(rows, ROWS[:-1])
    assert task_identity(f"{task}@{tmp_path / 'data'}").content != before


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "a.txt").write_text("text\n")
    assert files_below(tmp_path, dangling=True) == [tmp_path / "a.txt"]
