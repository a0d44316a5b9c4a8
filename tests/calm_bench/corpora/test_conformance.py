"""The sources that ship pass the suite for sources, and the suite finds what a source must not do."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import CORPORA, Document, Skipped
from calm_bench.testing.corpus_conformance import CorpusConformance

TEXTS = [f"text {number}" for number in range(60)]


class TestStdlib(CorpusConformance):
    """On a part of the library and the topics of pydoc: all of it takes seconds each time."""

    config = Corpus(source="stdlib")

    @pytest.fixture(autouse=True)
    def _few_modules(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("calm_bench.corpora.stdlib._library", lambda: Path(json.__file__).parent)


class TestMarkov(CorpusConformance):
    config = Corpus(source="markov")
    max_documents = 20


class TestLocalFiles(CorpusConformance):
    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Corpus:
        folder = tmp_path / "texts"
        folder.mkdir()
        lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
        (folder / "lines.jsonl").write_text(f"{lines}no record\n")
        (folder / "plain.txt").write_text("\n\n".join(TEXTS))
        return Corpus(source=str(folder))


class TestHuggingFace(CorpusConformance):
    @pytest.fixture
    def corpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
        import datasets

        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        datasets.Dataset.from_dict({"text": [*TEXTS, ""]}).save_to_disk(str(tmp_path / "set"))
        return Corpus(source=f"hf:{tmp_path / 'set'}")


class Faulty:
    """A source with one fault, by the name of the fault."""

    fields: tuple[str, ...] = ()

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.read = 0

    def dependencies(self, config: Corpus) -> dict[str, Any]:
        return {"version": (1, 2)} if self.fault == "not JSON" else {"version": 1}

    def documents(self, config: Corpus, skipped: Skipped) -> Iterator[Document]:
        texts = list(TEXTS)
        if self.fault == "global numbers":
            random.shuffle(texts)
        if self.fault == "split":
            texts = texts[: 20 + config.split_seed]
        self.read = 0
        for text in texts:
            self.read += 1
            shared = str(self.read) if self.fault == "shared state" else ""
            yield Document(text + shared, f"{'/data/' if self.fault == 'absolute' else ''}texts:{text}")


class FaultyParts(Faulty):
    """A source in parts with one fault."""

    def num_bytes(self, config: Corpus) -> int:
        return 1000

    def divide(self, config: Corpus, skipped: Skipped) -> list[list[str]]:
        parts = [TEXTS[:20], TEXTS[20:], []]
        if self.fault == "lost":
            parts[1] = parts[1][1:]
        if self.fault == "order":
            parts.reverse()
        self.read = 0
        return parts

    def read_part(self, config: Corpus, part: list[str], skipped: Skipped) -> Iterator[Document]:
        for text in part:
            self.read += 1
            yield Document(text if self.fault != "shared parts" else TEXTS[self.read], f"texts:{text}")

    def check(self, config: Corpus, skipped: Skipped) -> None: ...


class TestSoundParts(CorpusConformance):
    config = Corpus(source="sound-parts-for-a-test")

    @pytest.fixture(autouse=True)
    def _registered(self) -> None:
        if "sound-parts-for-a-test" not in CORPORA.names():
            CORPORA.register("sound-parts-for-a-test", FaultyParts("none"))


class TestSound(CorpusConformance):
    """The source of the faults, without one."""

    config = Corpus(source="sound-for-a-test")

    @pytest.fixture(autouse=True)
    def _registered(self) -> None:
        if "sound-for-a-test" not in CORPORA.names():
            CORPORA.register("sound-for-a-test", Faulty("none"))


class FaultFinder(CorpusConformance):
    """The suite, called by name."""

    __test__ = False
    config: ClassVar[Corpus] = Corpus(source="stdlib")


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("global numbers", "test_global_random_numbers_are_neither_read_nor_changed"),
        ("shared state", "test_two_readers_do_not_disturb_each_other"),
        ("absolute", "test_a_document_has_text_and_a_relative_origin"),
        ("split", "test_how_the_documents_are_split_does_not_change_them"),
        ("not JSON", "test_dependencies_are_json_and_constant"),
    ],
)
def test_a_fault_is_found(fault: str, test: str) -> None:
    with pytest.raises(AssertionError):
        getattr(FaultFinder(), test)(Faulty(fault), FaultFinder.config)


@pytest.mark.parametrize("fault", ["lost", "order", "shared parts"])
def test_a_fault_of_parts_is_found(fault: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        FaultFinder().test_parts_together_are_the_documents(FaultyParts(fault), FaultFinder.config)
