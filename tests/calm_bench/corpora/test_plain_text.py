"""Where plain text is cut: nothing is lost, nothing grows too long."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calm_bench.corpora import Document, Skipped
from calm_bench.corpora.input_file import LocalFile
from calm_bench.corpora.plain_text import WHOLE, Cut, cut_documents


def cut(path: Path, content: bytes, length: int) -> tuple[list[Document], Skipped]:
    path.write_bytes(content)
    skipped = Skipped()
    return list(cut_documents(LocalFile(path, "a.txt"), "a.txt", Cut(length), skipped)), skipped


@given(
    text=st.text(alphabet=st.sampled_from("ab é🎉 \n"), max_size=400),
    length=st.integers(min_value=4, max_value=50),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_but_blank_space_between_documents_is_lost(tmp_path: Path, text: str, length: int) -> None:
    documents, skipped = cut(tmp_path / "a.txt", text.encode(), length)
    joined = "".join(document.text for document in documents)
    assert joined.replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert all(document.text.strip() and len(document.text) <= 9 * length for document in documents)
    assert skipped.counts == ({} if documents else {"empty document": 1})


def test_blank_lines_first_then_line_ends_then_spaces(tmp_path: Path) -> None:
    documents, _ = cut(tmp_path / "a.txt", b"\n\none\ntwo\n \nthree, long enough\n\nfour\n", 6)
    assert documents == [
        Document("one\ntwo\n \n".strip("\n") + "\n", "a.txt:3"),
        Document("three, long enough\n", "a.txt:6"),
        Document("four\n", "a.txt:8"),
    ]
    lines, _ = cut(tmp_path / "a.txt", b"a line\n" * 10, 10)
    assert [document.text.count("\n") for document in lines] == [3, 3, 3, 1]
    words, _ = cut(tmp_path / "a.txt", b"word " * 100, 10)
    assert all(set(document.text.split()) == {"word"} for document in words)
    assert len(words) > 10


def test_a_text_without_any_space_is_cut_between_characters(tmp_path: Path) -> None:
    text = "日本語🎉" * 300
    documents, skipped = cut(tmp_path / "a.txt", text.encode(), 16)
    assert "".join(document.text.strip("\n") for document in documents) == text
    assert len(documents) > 10
    assert skipped.counts == {}


def test_lines_of_invalid_utf8_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    documents, skipped = cut(tmp_path / "a.txt", b"\xef\xbb\xbfgood\r\ncaf\xe9\r\nalso good\r\nend \xf0\x9f", 1000)
    assert [document.text for document in documents] == ["good\nalso good\n"]
    assert skipped.examples == {"invalid UTF-8": ["a.txt:2", "a.txt:4"]}


@pytest.mark.parametrize("content", [b"", b" \n\n\t\n"])
def test_an_empty_file_is_counted(tmp_path: Path, content: bytes) -> None:
    documents, skipped = cut(tmp_path / "a.txt", content, 100)
    assert documents == []
    assert skipped.examples == {"empty document": ["a.txt"]}


def test_small_texts_are_cut_finer_and_many_files_not_at_all() -> None:
    lengths = [Cut.for_source(1, size).length for size in (0, 50_000, 500_000, 10**9)]
    assert lengths == [256, 256, 1953, 4096]
    assert Cut.for_source(100, 10**9).length == WHOLE
