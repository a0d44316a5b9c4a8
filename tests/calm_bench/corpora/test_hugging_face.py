"""Data sets of the real library, from local folders: no network is needed or used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CorpusError, corpus_dependencies, identity_config, read_documents, write_corpus

TEXTS = [f"example {number}" for number in range(60)]


def save_set(folder: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": TEXTS, "id": list(range(60))}).save_to_disk(str(folder))


def save_dictionary(folder: Path) -> None:
    import datasets

    part = datasets.Dataset.from_dict({"text": TEXTS})
    datasets.DatasetDict(train=part, other=part.select(range(30))).save_to_disk(str(folder))


def save_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "data.jsonl").write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in TEXTS))


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("save", [save_set, save_dictionary, save_files])
def test_local_folders_of_each_form(tmp_path: Path, save: Callable[[Path], None]) -> None:
    save(tmp_path / "set")
    config = Corpus(source=f"hf:{tmp_path / 'set'}", validation_fraction=0, test_fraction=0)
    report = write_corpus(config, tmp_path / "out")
    assert list(read_documents(tmp_path / "out", "train")) == TEXTS
    assert report.skipped == {}
    write_corpus(config.model_copy(update={"max_documents": 7}), tmp_path / "few")
    assert list(read_documents(tmp_path / "few", "train")) == TEXTS[:7]


def test_a_split_by_name(tmp_path: Path) -> None:
    save_dictionary(tmp_path / "set")
    source = f"hf:{tmp_path / 'set'}"
    report = write_corpus(Corpus(source=source, split="other"), tmp_path / "out")
    assert sum(report.documents.values()) == 30
    with pytest.raises(CorpusError, match=r"no split 'test'; it has train, other") as refused:
        write_corpus(Corpus(source=source, split="test"), tmp_path / "out")
    names, setting = str(refused.value).partition("it has ")[2].removesuffix(")").split(" (corpus.")
    for name in names.split(", "):
        write_corpus(Corpus.model_validate({"source": source, setting: name}), tmp_path / name)


def test_examples_without_text_are_counted_and_a_wrong_field_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    lines = [{"text": text} for text in [*TEXTS, None, ""]]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = write_corpus(Corpus(source=f"hf:{folder}"), tmp_path / "out")
    assert report.skipped == {"empty document": 1, "field 'text' is no text": 1}
    assert report.examples == {"empty document": ["set:62"], "field 'text' is no text": ["set:61"]}
    with pytest.raises(CorpusError, match=r"has the field 'txt'.*did you mean 'text'"):
        write_corpus(Corpus(source=f"hf:{folder}", text_field="txt"), tmp_path / "out")


def test_a_folder_that_is_no_data_set_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").write_text("{broken\n")
    with pytest.raises(CorpusError, match=r"cannot read corpus\.source=hf:.*split train"):
        write_corpus(Corpus(source=f"hf:{tmp_path / 'set'}"), tmp_path / "out")


@pytest.mark.parametrize("revision", [None, "main", "abc123"])
def test_a_hub_name_needs_a_commit(tmp_path: Path, revision: str | None) -> None:
    config = Corpus(source="hf:someone/something", revision=revision)
    for use in (corpus_dependencies, lambda config: write_corpus(config, tmp_path)):
        with pytest.raises(CorpusError, match=r"corpus\.revision.*40 hex digits"):
            use(config)


def test_a_pinned_hub_name_is_identified_without_a_network() -> None:
    config = Corpus(source="hf:someone/something", revision="0123456789" * 4)
    assert corpus_dependencies(config) == {"name": "someone/something", "revision": "0123456789" * 4}
    assert identity_config(config) != identity_config(config.model_copy(update={"subset": "en"}))


def test_a_hub_that_cannot_be_reached_is_an_error_that_says_so(tmp_path: Path) -> None:
    config = Corpus(source="hf:someone/something", revision="0123456789" * 4)
    with pytest.raises(CorpusError, match=r"cannot read corpus\.source=hf:someone/something"):
        write_corpus(config, tmp_path)


def test_a_local_folder_is_identified_by_its_content(tmp_path: Path) -> None:
    def dependencies(folder: Path) -> Any:
        return corpus_dependencies(Corpus(source=f"hf:{folder}"))

    save_files(tmp_path / "one")
    save_files(tmp_path / "two")
    assert dependencies(tmp_path / "one") == dependencies(tmp_path / "two")
    (tmp_path / "two" / "more.jsonl").write_text('{"text": "x"}\n')
    assert dependencies(tmp_path / "one") != dependencies(tmp_path / "two")
