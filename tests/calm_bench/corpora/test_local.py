"""Files and folders of every kind, with all that can be wrong in them."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, Document, Skipped, corpus_dependencies, write_corpus
from calm_bench.corpora.local import SOURCE
from calm_bench.overrides import load_yaml, parse_assignment


def read(source: Path, **settings: Any) -> tuple[list[Document], Skipped]:
    skipped = Skipped()
    return list(SOURCE.documents(Corpus(source=str(source), **settings), skipped)), skipped


def test_json_lines_with_every_kind_of_damage(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "first", "other": 1}',
        b'{"text": "cut off',
        b"",
        b'{"text": "caf\xe9"}',
        b'["no", "object"]',
        b'{"body": "elsewhere"}',
        b'{"text": null}',
        b'{"text": ""}',
        b'{"text": "a lone \\ud800 surrogate"}',
        b"[" * 100_000,
        '{"text": "zuletzt ü"}'.encode(),
    ]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(lines))
    report = write_corpus(Corpus(source=str(path), validation_fraction=0, test_fraction=0), tmp_path / "out")
    assert report.documents["train"] == 2
    assert report.examples == {
        "JSON line that is no object": ["bad.jsonl:5"],
        "broken JSON line": ["bad.jsonl:2", "bad.jsonl:10"],
        "empty document": ["bad.jsonl:8"],
        "empty line": ["bad.jsonl:3"],
        "field 'text' is no text": ["bad.jsonl:7"],
        "invalid UTF-8": ["bad.jsonl:4", "bad.jsonl:9"],
        "no field 'text'": ["bad.jsonl:6"],
    }
    assert sum(report.skipped.values()) + report.documents["train"] == len(lines)


def test_examples_are_few_but_counts_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' + "broken\n" * 1000)
    _, skipped = read(path)
    assert skipped.counts == {"broken JSON line": 1000}
    assert skipped.examples == {"broken JSON line": [f"a.jsonl:{line}" for line in range(2, 7)]}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_field_that_no_record_has_is_refused_with_the_nearest(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        path.write_text('{"content": "x"}\n')
    else:
        pq.write_table(pa.table({"content": ["x"]}), path)
    with pytest.raises(CorpusError, match=r"no record .* 'contents' .*did you mean 'content'"):
        read(path, text_field="contents")
    assert read(path, text_field="content")[0][0].text == "x"


@pytest.mark.parametrize("name", [" text", "text ", "text: en", "#text", "1", "null", "te'xt", 'te"xt'])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_field_that_needs_quotes_is_told_as_it_is_to_be_written(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("w") as file:
        if suffix == ".csv":
            csv.writer(file).writerows([["id", name], ["1", "x"]])
        else:
            file.write(json.dumps({"id": "1", name: "x"}))
    asked = {"1": "12", "null": "nul"}.get(name, "text")
    with pytest.raises(CorpusError) as told:
        read(path, text_field=asked)
    found = re.search(r"did you mean .*\? It needs quotes: (.*) in a file, (.*) on the command line$", str(told.value))
    assert found is not None, told.value
    (assignment,) = shlex.split(found[2])
    (tmp_path / "study.yaml").write_text(found[1])
    for field in (load_yaml(tmp_path / "study.yaml")["text_field"], parse_assignment(assignment)[1]):
        assert read(path, text_field=field)[0][0].text == "x"


def test_parquet_rows_across_row_groups(tmp_path: Path) -> None:
    texts = [f"row {number}" for number in range(3000)]
    texts[1500] = None  # type: ignore[call-overload]
    pq.write_table(pa.table({"text": texts, "id": range(3000)}), tmp_path / "a.parquet", row_group_size=700)
    documents, skipped = read(tmp_path / "a.parquet")
    assert [document.text for document in documents] == [text for text in texts if text]
    assert documents[-1].where == "a.parquet:3000"
    assert skipped.examples == {"field 'text' is no text": ["a.parquet:1501"]}


def test_parquet_with_invalid_utf8_and_other_types(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", b"also good"], type=pa.binary())
    unchecked = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": unchecked, "number": [1, 2, 3]}), tmp_path / "a.parquet")
    documents, skipped = read(tmp_path / "a.parquet")
    assert [document.text for document in documents] == ["good", "also good"]
    assert skipped.examples == {"invalid UTF-8": ["a.parquet:2"]}
    assert read(tmp_path / "a.parquet", text_field="number")[1].counts == {"field 'number' is no text": 3}


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(CorpusError, match=r"a\.parquet is not a readable Parquet file"):
        read(tmp_path)


def test_a_folder_is_read_in_the_order_of_relative_paths(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a.txt", "b/1.jsonl", ".hidden.txt", ".git/x.txt", "c.pdf", "B.TXT"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": name}) if name.endswith("jsonl") else f"{name}\n")
    documents, skipped = read(tmp_path)
    assert [document.text.strip() for document in documents] == ["B.TXT", "a.txt", "b/1.jsonl", "b/2.txt"]
    assert [document.where for document in documents] == ["B.TXT:1", "a.txt:1", "b/1.jsonl:1", "b/2.txt:1"]
    assert skipped.examples == {"file of another kind": ["c.pdf"]}


def test_identity_is_the_content_and_not_the_place(tmp_path: Path) -> None:
    def digest(path: Path) -> Any:
        return corpus_dependencies(Corpus(source=str(path)))["content"]

    one, two = tmp_path / "one.txt", tmp_path / "elsewhere" / "two.txt"
    two.parent.mkdir()
    one.write_text("the same")
    two.write_text("the same")
    assert digest(one) == digest(two) == digest(two.parent)
    (tmp_path / "one.jsonl").write_text("the same")
    assert digest(tmp_path / "one.jsonl") != digest(one)
    two.write_text("not the same")
    assert digest(two) != digest(one)


@pytest.mark.parametrize("name", ["a.pdf", "folder"])
def test_what_cannot_be_read_is_refused_with_the_kinds_that_can(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    else:
        path.write_text("x")
    with pytest.raises(CorpusError, match=r"\.txt, \.jsonl, .*\.parquet or \.arrow"):
        read(path)
    with pytest.raises(CorpusError, match=r"\.txt, \.jsonl, .*\.parquet or \.arrow"):
        corpus_dependencies(Corpus(source=str(path)))


def test_a_text_in_a_foreign_encoding_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain words\n" * 6, encoding="utf-16")
    with pytest.raises(CorpusError, match=r"a\.txt is UTF-16 text.*iconv -f UTF-16"):
        write_corpus(Corpus(source=str(tmp_path / "a.txt")), tmp_path / "out")


def test_one_plain_file_becomes_a_whole_corpus(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {number} of a book, {'with some words ' * (number % 30)}.\n\n" for number in range(400)]
    (tmp_path / "book.txt").write_text("".join(paragraphs))
    report = write_corpus(Corpus(source=str(tmp_path / "book.txt")), tmp_path / "out")
    assert all(report.documents.values())
    assert sum(report.documents.values()) > 100
    assert report.skipped == {}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [(POINTER, "a Git LFS pointer.*git lfs pull"), ("some text\n".encode("utf-16"), "UTF-16 text.*iconv")],
)
@pytest.mark.parametrize("name", ["text.txt", "text.jsonl"])
def test_files_that_are_something_else_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=f"{name} is {message}"):
        read(tmp_path / name)
    (tmp_path / "good.txt").write_text("good text\n")
    documents, skipped = read(tmp_path)
    assert [text for text, _ in documents] == ["good text\n"]
    assert any(reason.startswith("file that is ") for reason in skipped.counts)


def test_a_pointer_in_place_of_parquet(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_bytes(POINTER)
    with pytest.raises(CorpusError, match=r"text\.parquet is a Git LFS pointer"):
        read(tmp_path / "text.parquet")
