"""Of a folder that grew, or of which a file changed, only that is read; the corpus is that of whoever reads all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus, Markov, MixtureSource
from calm_bench.corpora import CorpusReport, corpus_part, input_parts, write_corpus
from calm_bench.corpora import source as source_module
from calm_bench.corpora.corpus_part import CorpusPart
from calm_bench.corpora.earlier_parts import INDEX

ALL = ["a", "b", "c"]


def write_file(folder: Path, name: str, word: str = "word", count: int = 40) -> None:
    folder.mkdir(exist_ok=True)
    records = ({"text": f"document {number} of {name} {word}", "lang": "en"} for number in range(count))
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + "broken\n")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files, each a part."""
    monkeypatch.setattr(input_parts, "PART_BYTES", 3000)
    for name in ALL:
        write_file(tmp_path / "source", name)
    return tmp_path / "source"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of the parts that were read, not taken."""
    found: list[str] = []
    write = corpus_part._write

    def noted(config: Corpus, part: CorpusPart, folder: Path) -> dict[str, Any]:
        found.extend([] if part.content is None else [span.name.partition(".")[0] for span in part.content.spans])
        return write(config, part, folder)

    monkeypatch.setattr(corpus_part, "_write", noted)
    return found


def config(source: Path, **settings: Any) -> Corpus:
    return Corpus(source=str(source), validation_fraction=0.2, test_fraction=0.2, **settings)


def files(folder: Path) -> dict[str, bytes]:
    """What a finished corpus consists of."""
    found = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: content for name, content in named.items() if name.partition("/")[0] not in ("parts", "partial")}


class Before:
    """A finished corpus, and what a later one takes of it."""

    def __init__(self, folder: Path, corpus: Corpus, read: list[str]) -> None:
        self.folder = folder
        self._read = read
        self._next = 0
        write_corpus(corpus, folder / "before")
        read.clear()

    def reads(self, corpus: Corpus) -> tuple[list[str], CorpusReport]:
        """What is read again of ``corpus``; it is the same as if all were."""
        self._next += 1
        self._read.clear()
        report = write_corpus(corpus, self.folder / f"after-{self._next}", earlier=[self.folder / "before"])
        found = list(self._read)
        assert write_corpus(corpus, self.folder / f"fresh-{self._next}") == report
        assert files(self.folder / f"after-{self._next}") == files(self.folder / f"fresh-{self._next}")
        return found, report


def add_last(source: Path) -> None:
    write_file(source, "d")


def add_between(source: Path) -> None:
    write_file(source, "ab")


def change(source: Path) -> None:
    write_file(source, "b", word="other")


def touch(source: Path) -> None:
    write_file(source, "b")


def rename(source: Path) -> None:
    (source / "b.jsonl").rename(source / "x.jsonl")


def remove(source: Path) -> None:
    (source / "b.jsonl").unlink()


@pytest.mark.parametrize(
    ("happens", "expected"),
    [(add_last, ["d"]), (add_between, ["ab"]), (change, ["b"]), (touch, []), (rename, ["x"]), (remove, [])],
)
def test_only_what_is_new_is_read(
    tmp_path: Path, source: Path, read: list[str], happens: Callable[[Path], None], expected: list[str]
) -> None:
    before = Before(tmp_path, config(source), read)
    happens(source)
    found, report = before.reads(config(source))
    assert found == expected
    # Places of what was left out are those of a fresh reader.
    assert len(report.examples["broken JSON line"]) == len(list(source.iterdir()))


@pytest.mark.usefixtures("source")
def test_a_part_of_several_files_is_one(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_parts, "PART_BYTES", 10**6)
    before = Before(tmp_path, config(tmp_path / "source"), read)
    assert before.reads(config(tmp_path / "source"))[0] == []
    write_file(tmp_path / "source", "d")
    assert before.reads(config(tmp_path / "source"))[0] == [*ALL, "d"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"split_seed": 1}, ALL),
        ({"max_document_bytes": 30}, ALL),
        ({"quality": {"min_characters": 3}}, ALL),
        ({"quality": {"language_field": "lang", "languages": ["en"]}}, ALL),
        ({"quality": {"duplicates": "exact"}}, []),
        ({"quality": {"decontaminate_words": 9}}, []),
        ({"license": "CC0"}, []),
        # The part that the limit ends in is read up to there.
        ({"max_documents": 50}, ["b"]),
        ({"max_documents": 1000}, []),
    ],
)
def test_settings_that_shape_documents_are_part_of_what_is_known(
    tmp_path: Path, source: Path, read: list[str], settings: dict[str, Any], expected: list[str]
) -> None:
    before = Before(tmp_path, config(source), read)
    assert before.reads(config(source, **settings))[0] == expected


def test_parts_that_were_changed_afterwards_are_read_again(tmp_path: Path, source: Path, read: list[str]) -> None:
    (source / "c.jsonl").write_text((source / "a.jsonl").read_text())
    exact = config(source, quality={"duplicates": "exact"})
    before = Before(tmp_path, exact, read)
    add_last(source)
    found, report = before.reads(exact)
    assert found == ["c", "d"]
    assert report.skipped["exact copy of an earlier document"] == 40


def test_a_member_of_a_mixture_is_known_alone(tmp_path: Path, source: Path, read: list[str]) -> None:
    before = Before(tmp_path, config(source), read)
    write_file(tmp_path / "more", "z")
    members = (MixtureSource(source=str(source), weight=0.5), MixtureSource(source=str(tmp_path / "more"), weight=0.5))
    mixed = Corpus(mixture=members, validation_fraction=0.2, test_fraction=0.2)
    assert before.reads(mixed)[0] == ["z"]


def test_plain_text_is_read_again_where_it_is_cut_otherwise(tmp_path: Path, source: Path, read: list[str]) -> None:
    (source / "p.txt").write_text("".join(f"line {number} of some prose\n" for number in range(100)))
    before = Before(tmp_path, config(source), read)
    add_last(source)
    assert before.reads(config(source))[0] == ["d"]
    # More text, longer documents.
    (source / "q.txt").write_text("".join(f"line {number} of more prose\n" for number in range(9000)))
    assert {"p", "q"} == set(before.reads(config(source))[0]) - {"d"}


@pytest.mark.parametrize("damage", ["cut", "gone", "another part"])
def test_what_is_damaged_is_read_again_and_never_written_to(
    tmp_path: Path, source: Path, read: list[str], damage: str
) -> None:
    before = Before(tmp_path, config(source), read)
    path = tmp_path / "before" / "train" / "part-00001.arrow"
    path.unlink()
    if damage == "cut":
        path.write_bytes(b"cut")
    elif damage == "another part":
        # A whole file, of documents of its own: only its hash tells.
        path.write_bytes(path.with_name("part-00000.arrow").read_bytes())
    others = files(tmp_path / "before")
    assert before.reads(config(source))[0] == ["b"]
    assert files(tmp_path / "before") == others


@pytest.mark.parametrize("content", ["{", "{}", '{"format": 2, "parts": []}', '{"format": 1, "parts": [{"key": 1}]}'])
def test_a_list_that_cannot_be_read_is_none(tmp_path: Path, source: Path, read: list[str], content: str) -> None:
    before = Before(tmp_path, config(source), read)
    (tmp_path / "before" / INDEX).write_text(content)
    assert before.reads(config(source))[0] == ALL


def test_other_code_of_a_source_makes_other_parts(
    tmp_path: Path, source: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Before(tmp_path, config(source), read)
    monkeypatch.setattr(source_module, "corpus_code", lambda config: ["digest of another"])
    assert before.reads(config(source))[0] == ALL


def test_a_source_without_parts_lists_none(tmp_path: Path) -> None:
    write_corpus(Corpus(source="markov", markov=Markov(num_documents=20)), tmp_path / "out")
    assert not (tmp_path / "out" / INDEX).exists()
