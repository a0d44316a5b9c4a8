"""Parts of files: together they are the whole, each stands alone, and nothing but the files decides on them."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import Document, Skipped, corpus_dependencies
from calm_bench.corpora import input_parts as input_parts_module
from calm_bench.corpora import local as local_module
from calm_bench.corpora.file_source import FilesPart
from calm_bench.corpora.input_parts import Span, pack
from calm_bench.corpora.local import SOURCE

TEXTS = [f"text {number} " + "naïve 数 " * (number % 23) for number in range(600)]


def json_lines(folder: Path) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS]
    lines[::50] = ["broken"] * len(lines[::50])
    (folder / "a.jsonl").write_text("\n".join(lines))


def parquet(folder: Path) -> None:
    texts = [text if number % 90 else None for number, text in enumerate(TEXTS)]
    pq.write_table(pa.table({"text": texts}), folder / "a.parquet", row_group_size=37)


def arrow(folder: Path) -> None:
    table = pa.table({"text": TEXTS})
    with pa.ipc.new_file(str(folder / "a.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=41)


def arrow_stream(folder: Path) -> None:
    table = pa.table({"text": TEXTS})
    with pa.ipc.new_stream(str(folder / "a.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=41)


def many_files(folder: Path) -> None:
    json_lines(folder)
    parquet(folder)
    for number, text in enumerate(TEXTS[:60]):
        (folder / f"{number:03d}.txt").write_text(text)
    (folder / "empty.jsonl").write_text("")
    (folder / "wide.txt").write_bytes("words".encode("utf-16"))


def small_parts(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr(input_parts_module, "PART_BYTES", num_bytes)
    monkeypatch.setattr(local_module, "PART_BYTES", num_bytes)


def read_parts(source: Path) -> tuple[list[list[Document]], Skipped]:
    """The documents by part, each read by itself as in a process of its own."""
    config, skipped = Corpus(source=str(source)), Skipped()
    found = []
    for part in SOURCE.divide(config, skipped):
        mine = Skipped()
        sent: FilesPart = pickle.loads(pickle.dumps(part))
        found.append(list(SOURCE.read_part(config, sent, mine)))
        skipped.merge(Skipped.from_dict(json.loads(json.dumps(mine.as_dict()))))
    return found, skipped


@pytest.mark.parametrize("part_bytes", [700, 5000, 20_000])
@pytest.mark.parametrize("make", [json_lines, parquet, arrow, arrow_stream, many_files])
def test_parts_together_are_the_whole(
    tmp_path: Path, make: Callable[[Path], None], part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    [whole], skipped = read_parts(tmp_path)
    small_parts(monkeypatch, part_bytes)
    parts, skipped_by_parts = read_parts(tmp_path)
    assert [text for part in parts for text, _ in part] == [text for text, _ in whole]
    assert skipped_by_parts.counts == skipped.counts
    assert (len(parts) > 1) == (make is not arrow_stream)
    everything = Skipped()
    config = Corpus(source=str(tmp_path))
    assert [text for text, _ in SOURCE.documents(config, everything)] == [text for text, _ in whole]
    assert everything.counts == skipped.counts


def test_parts_have_about_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 5000)
    many_files(tmp_path)
    parts = SOURCE.divide(Corpus(source=str(tmp_path)), Skipped())
    sizes = [sum(span.size for span in part.spans) for part in parts]
    total = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert len(parts) < 3 * total / 5000
    # The last line before a border, or a row group, may lie behind it.
    assert max(sizes) < 6000


def test_small_neighbours_share_a_part_and_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 10)
    spans = [Span(name, size) for name, size in [("a", 4), ("b", 6), ("c", 1), ("d", 25), ("e", 0), ("f", 10)]]
    assert [[span.name for span in part] for part in pack(spans)] == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert list(pack([])) == []


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_long_text_is_cut_at_paragraphs(tmp_path: Path, newline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(3)
    paragraphs = [f"Paragraph {number}. " + "naïve 数 " * random.randrange(60) for number in range(500)]
    (tmp_path / "a.txt").write_bytes((newline * 2).join(paragraphs).encode())
    small_parts(monkeypatch, 9000)
    parts, skipped = read_parts(tmp_path)
    assert len(parts) > 5
    assert skipped.counts == {}
    assert [part[0].text.startswith("Paragraph") for part in parts] == [True] * len(parts)
    text = "\n\n".join(document.text.strip("\n") for part in parts for document in part)
    assert text == "\n\n".join(paragraphs).strip("\n")


@pytest.mark.parametrize("separator", [" ", "\n", ""])
def test_texts_without_paragraphs_are_whole_too(
    tmp_path: Path, separator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = separator.join(f"naïve数{number}" for number in range(4000))
    (tmp_path / "a.txt").write_text(content)
    small_parts(monkeypatch, 9000)
    parts, skipped = read_parts(tmp_path)
    assert skipped.counts == {}
    assert (len(parts) > 1) == bool(separator)
    joined = "".join(document.text for part in parts for document in part)
    assert "".join(joined.split()) == "".join(content.split())


def test_a_line_that_is_longer_than_a_part_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["short", "x" * 50_000, "also short"] * 2
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    small_parts(monkeypatch, 1000)
    parts, _ = read_parts(tmp_path)
    assert [text for part in parts for text, _ in part] == texts


def test_places_in_later_parts_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    json_lines(tmp_path)
    (tmp_path / "b.jsonl").write_text("".join(f"bad {number}\n" for number in range(300)))
    small_parts(monkeypatch, 5000)
    parts, _ = read_parts(tmp_path)
    content = (tmp_path / "a.jsonl").read_bytes()
    for text, where in parts[3]:
        name, _, place = where.partition("@")
        offset, _, line = place.partition(":")
        assert name == "a.jsonl"
        assert json.loads(content[int(offset) :].split(b"\n")[int(line) - 1])["text"] == text


def test_rows_of_parquet_are_counted_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path)
    small_parts(monkeypatch, 5000)
    parts, skipped = read_parts(tmp_path)
    assert len(parts) > 1
    assert parts[-1][-1].where == "a.parquet:600"
    assert skipped.examples["field 'text' is no text"] == [f"a.parquet:{row + 1}" for row in (0, 90, 180, 270, 360)]


def test_only_long_plain_texts_depend_on_the_size_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(name: str) -> set[str]:
        return set(corpus_dependencies(Corpus(source=str(tmp_path / name))))

    json_lines(tmp_path)
    (tmp_path / "long.txt").write_text("words\n" * 1000)
    (tmp_path / "short.txt").write_text("words\n" * 10)
    small_parts(monkeypatch, 5000)
    assert keys("long.txt") == {"content", "text_part_bytes"}
    assert keys("short.txt") == keys("a.jsonl") == {"content"}


def test_a_field_is_missed_only_where_no_part_has_it() -> None:
    config = Corpus(source="anything", text_field="text")
    without, having = Skipped(), Skipped()
    without.note_other_fields(["txt"])
    with pytest.raises(ValueError, match=r"no record .* 'text' .*did you mean 'txt'"):
        SOURCE.check(config, without)
    having.has_field = True
    without.merge(having)
    SOURCE.check(config, without)
