"""Splitting, counting and reading back, whatever the source."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import SPLITS, CorpusError, CorpusReport, read_documents, write_corpus


def write(path: Path, texts: list[Any], folder: Path, **settings: Any) -> tuple[CorpusReport, dict[str, list[str]]]:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    report = write_corpus(Corpus(source=str(path), **settings), folder)
    return report, {split: list(read_documents(folder, split)) for split in SPLITS}


@pytest.fixture
def texts() -> list[str]:
    return [f"document number {number}, naïve and unique" for number in range(500)]


def test_every_document_lands_in_one_split_in_the_given_order(tmp_path: Path, texts: list[str]) -> None:
    report, found = write(tmp_path / "a.jsonl", texts, tmp_path / "out", validation_fraction=0.2, test_fraction=0.3)
    assert sorted(chain(*found.values())) == sorted(texts)
    for split in SPLITS:
        assert found[split] == [text for text in texts if text in set(found[split])]
        assert report.documents[split] == len(found[split])
        assert report.bytes[split] == sum(len(text.encode()) for text in found[split])
    assert 60 <= len(found["validation"]) <= 140
    assert 105 <= len(found["test"]) <= 195


def test_the_split_depends_on_neither_order_nor_other_documents(tmp_path: Path, texts: list[str]) -> None:
    _, before = write(tmp_path / "a.jsonl", texts, tmp_path / "one")
    _, after = write(tmp_path / "b.jsonl", ["new", *reversed(texts[:400])], tmp_path / "two")
    for split in SPLITS:
        assert set(after[split]) - {"new"} == set(before[split]) & set(texts[:400])


def test_copies_share_a_split(tmp_path: Path, texts: list[str]) -> None:
    _, found = write(tmp_path / "a.jsonl", texts[:50] * 3, tmp_path / "out")
    assert all(found.values())
    assert all(found[split].count(text) == 3 for split in SPLITS for text in found[split])


def test_another_split_seed_splits_otherwise(tmp_path: Path, texts: list[str]) -> None:
    one, found = write(tmp_path / "a.jsonl", texts, tmp_path / "one")
    two, other = write(tmp_path / "a.jsonl", texts, tmp_path / "two", split_seed=1)
    assert set(found["test"]) != set(other["test"])
    assert one.digest != two.digest


def test_files_and_digest_are_the_same_each_time(tmp_path: Path, texts: list[str]) -> None:
    one, _ = write(tmp_path / "a.jsonl", texts, tmp_path / "one")
    two, _ = write(tmp_path / "b.jsonl", texts, tmp_path / "two")
    assert one.digest == two.digest
    for split in SPLITS:
        assert (tmp_path / "one" / f"{split}.arrow").read_bytes() == (tmp_path / "two" / f"{split}.arrow").read_bytes()
    changed, _ = write(tmp_path / "c.jsonl", [*texts[:-1], texts[-1] + "!"], tmp_path / "three")
    assert changed.digest != one.digest


def test_a_small_corpus_still_fills_every_wanted_split(tmp_path: Path) -> None:
    for count in range(3, 12):
        texts = [f"text {number}" for number in range(count)] * 2
        report, found = write(tmp_path / "a.jsonl", texts, tmp_path / f"out{count}")
        assert sorted(chain(*found.values())) == sorted(texts)
        assert all(found[split] for split in SPLITS)
        assert not set(found["train"]) & set(found["test"])
        assert not set(found["train"]) & set(found["validation"])
        assert report.documents == {split: len(found[split]) for split in SPLITS}
        reread, _ = write(tmp_path / "b.jsonl", texts, tmp_path / f"again{count}")
        assert reread.digest == report.digest
    assert report.filled


def test_a_split_of_fraction_zero_is_empty_and_can_be_read(tmp_path: Path, texts: list[str]) -> None:
    report, found = write(tmp_path / "a.jsonl", texts, tmp_path / "out", validation_fraction=0, test_fraction=0)
    assert found == {"train": texts, "validation": [], "test": []}
    assert report.filled == []


def test_too_few_different_documents_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"too few different documents \(4 in all, copies included\).*add text"):
        write(tmp_path / "a.jsonl", ["one", "two", "one", "two"], tmp_path / "out")


def test_an_empty_corpus_is_refused_and_says_what_was_left_out(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no document with text.*2 x empty document \(first at a.jsonl:1\)"):
        write(tmp_path / "a.jsonl", ["", " \n"], tmp_path / "out")


def test_max_documents_counts_kept_documents(tmp_path: Path, texts: list[str]) -> None:
    report, found = write(tmp_path / "a.jsonl", ["", *texts], tmp_path / "out", max_documents=40)
    assert sorted(chain(*found.values())) == sorted(texts[:40])
    assert report.skipped == {"empty document": 1}


def test_a_large_document_and_many_batches_survive(tmp_path: Path) -> None:
    texts = [f"{number}" + "é" * 1_500_000 for number in range(4)]
    _, found = write(tmp_path / "a.jsonl", texts, tmp_path / "out", validation_fraction=0, test_fraction=0)
    assert found["train"] == texts


def test_the_report_is_json(tmp_path: Path, texts: list[str]) -> None:
    report, _ = write(tmp_path / "a.jsonl", texts, tmp_path / "out")
    assert CorpusReport(**json.loads(json.dumps(report.as_dict()))) == report


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"train\.arrow"):
        list(read_documents(tmp_path, "train"))
    (tmp_path / "test.arrow").write_bytes(b"no arrow")
    with pytest.raises(CorpusError, match=r"test\.arrow"):
        list(read_documents(tmp_path, "test"))


def test_copies_in_held_out_splits_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "copies.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {number % 40}"}) + "\n" for number in range(120)))
    report = write_corpus(Corpus(source=str(path), validation_fraction=0.2, test_fraction=0.2), tmp_path / "out")
    for split, repeated in report.repeated.items():
        assert repeated == report.documents[split] * 2 // 3 > 0
    assert "train" not in report.repeated
