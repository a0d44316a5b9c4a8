"""A corpus of many parts is the same text as one of a single part, whoever makes the parts, and however often."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus
from calm_bench.corpora import SPLITS, CorpusError, read_documents, write_corpus
from calm_bench.corpora import input_parts as input_parts_module
from calm_bench.corpora import write as write_module
from calm_bench.published_parts import PartMapper, in_this_process


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("a", "b", "c"):
        lines = [
            json.dumps({"text": f"document {number} of {name} " + "word " * (number % 9)}) for number in range(200)
        ]
        lines[::40] = ["broken"] * 5
        # The same in all files.
        lines[1::40] = [json.dumps({"text": f"copied {number}"}) for number in range(5)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_parts_module, "PART_BYTES", 3000)


def config(source: Path, **settings: Any) -> Corpus:
    return Corpus(source=str(source), validation_fraction=0.2, test_fraction=0.2, **settings)


def shuffled(work: Callable[[Any], Any], parts: Sequence[Any]) -> Generator[Any, None, None]:
    yield from in_this_process(work, random.Random(7).sample(parts, len(parts)))


def documents(folder: Path) -> dict[str, list[str]]:
    return {split: list(read_documents(folder, split)) for split in SPLITS}


def files(folder: Path) -> dict[str, bytes]:
    """What a finished corpus consists of."""
    found = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: content for name, content in named.items() if name.partition("/")[0] not in ("parts", "partial")}


def test_the_corpus_is_that_of_a_single_part(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    whole = write_corpus(config(source), tmp_path / "whole")
    request.getfixturevalue("small_parts")
    monkeypatch.setattr(write_module, "DIGESTS_AT_ONCE", 16)
    parts = write_corpus(config(source), tmp_path / "parts")
    assert documents(tmp_path / "parts") == documents(tmp_path / "whole")
    assert set(files(tmp_path / "whole")) == {"train.arrow", "validation.arrow", "test.arrow", "parts.json"}
    assert len(files(tmp_path / "parts")) > 10
    assert whole.repeated["test"] > 0
    # Places count from the part's beginning.
    assert replace(parts, examples={}) == replace(whole, examples={})
    assert {reason: len(found) for reason, found in parts.examples.items()} == {"broken JSON line": 5}


@pytest.mark.usefixtures("small_parts")
def test_the_order_in_which_parts_are_done_changes_nothing(tmp_path: Path, source: Path) -> None:
    one = write_corpus(config(source), tmp_path / "one")
    assert write_corpus(config(source), tmp_path / "two", shuffled) == one
    assert files(tmp_path / "two") == files(tmp_path / "one")


@pytest.mark.parametrize("mapper", [in_this_process, shuffled])
@pytest.mark.parametrize("limit", [1, 50, 194, 195, 196, 400, 585, 10_000])
def test_the_first_documents_are_the_first(
    tmp_path: Path, source: Path, limit: int, mapper: PartMapper, request: pytest.FixtureRequest
) -> None:
    limited = config(source, max_documents=limit).model_copy(update={"validation_fraction": 0, "test_fraction": 0})
    whole = write_corpus(limited, tmp_path / "whole")
    request.getfixturevalue("small_parts")
    parts = write_corpus(limited, tmp_path / "parts", mapper)
    assert documents(tmp_path / "parts") == documents(tmp_path / "whole")
    assert replace(parts, examples={}) == replace(whole, examples={})


class Stopped(Exception):
    pass


def stopping(after: int) -> PartMapper:
    def mapper(work: Callable[[Any], Any], parts: Sequence[Any]) -> Generator[Any, None, None]:
        for part in parts[:after]:
            yield work(part)
        raise Stopped

    return mapper


def inodes(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_ino for path in folder.glob("parts/*/part.json")}


@pytest.mark.usefixtures("small_parts")
def test_what_was_published_is_not_made_again(tmp_path: Path, source: Path) -> None:
    expected = write_corpus(config(source), tmp_path / "expected")
    for after in (2, 5):
        with pytest.raises(Stopped):
            write_corpus(config(source), tmp_path / "resumed", stopping(after))
        assert set(inodes(tmp_path / "resumed")) == {f"{number:05d}" for number in range(after)}
    before = inodes(tmp_path / "resumed")
    assert write_corpus(config(source), tmp_path / "resumed") == expected
    assert before.items() <= inodes(tmp_path / "resumed").items()
    assert files(tmp_path / "resumed") == files(tmp_path / "expected")
    assert not list((tmp_path / "resumed" / "partial").iterdir())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["train.arrow", "train.digests", "part.json"])
def test_a_damaged_part_alone_is_made_again(
    tmp_path: Path, source: Path, damage: Callable[[Path], None], name: str
) -> None:
    expected = write_corpus(config(source), tmp_path / "expected")
    with pytest.raises(Stopped):
        write_corpus(config(source), tmp_path / "out", stopping(4))
    before = inodes(tmp_path / "out")
    damage(tmp_path / "out" / "parts" / "00001" / name)
    assert write_corpus(config(source), tmp_path / "out") == expected
    assert files(tmp_path / "out") == files(tmp_path / "expected")
    after = inodes(tmp_path / "out")
    assert {part for part in before if after[part] != before[part]} == {"00001"}


@pytest.mark.usefixtures("small_parts")
def test_parts_of_other_text_are_not_taken(tmp_path: Path, source: Path) -> None:
    write_corpus(config(source), tmp_path / "out")
    text = (source / "b.jsonl").read_text().replace("document 7 of b", "document X of b")
    (source / "b.jsonl").write_text(text)
    changed = write_corpus(config(source), tmp_path / "out")
    assert changed == write_corpus(config(source), tmp_path / "new")
    texts = chain(*documents(tmp_path / "out").values())
    assert any("document X of b" in text for text in texts)
    for other in (config(source, split_seed=1), config(source / "a.jsonl"), Corpus(source="markov"), config(source)):
        fresh = tmp_path / other.source.replace("/", "-") / str(other.split_seed)
        assert write_corpus(other, tmp_path / "out") == write_corpus(other, fresh)
        assert files(tmp_path / "out") == files(fresh)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("num_documents", [3, 4, 7])
def test_splits_are_filled_across_parts(tmp_path: Path, num_documents: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "few.jsonl"
    texts = [f"{number} " + "word " * 700 for number in range(num_documents)] * 2
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    few = Corpus(source=str(path), validation_fraction=0.01, test_fraction=0.01)
    parts = write_corpus(few, tmp_path / "parts")
    found = documents(tmp_path / "parts")
    monkeypatch.setattr(input_parts_module, "PART_BYTES", 10**9)
    assert replace(write_corpus(few, tmp_path / "whole"), examples={}) == replace(parts, examples={})
    assert found == documents(tmp_path / "whole")
    assert set(parts.filled) == {"validation", "test"}
    assert write_corpus(few, tmp_path / "whole") == write_corpus(few, tmp_path / "whole")


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"corpus\.json has format 2, this version reads 1"),
        ({"splits": {"train": ["../outside.arrow"]}}, "outside its folder"),
        ({"splits": {}}, r"corpus\.json is not a readable list"),
        ({"splits": {"train": ["train/part-00000.arrow", "train/part-09999.arrow"]}}, r"part-09999\.arrow is not"),
    ],
)
def test_a_list_of_files_that_cannot_be_followed_is_named(
    tmp_path: Path, source: Path, change: dict[str, Any], message: str
) -> None:
    write_corpus(config(source), tmp_path / "out")
    path = tmp_path / "out" / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorpusError, match=message):
        list(read_documents(tmp_path / "out", "train"))


@pytest.mark.usefixtures("small_parts")
def test_a_source_that_goes_in_between_is_named_and_costs_no_other_part(tmp_path: Path, source: Path) -> None:
    expected = write_corpus(config(source), tmp_path / "expected")
    gone = source / "c.jsonl"
    moved = source.with_name("elsewhere")

    def vanishing(work: Callable[[Any], Any], parts: Sequence[Any]) -> Generator[Any, None, None]:
        yield work(parts[0])
        gone.rename(moved)
        yield from in_this_process(work, parts[1:])

    with pytest.raises(CorpusError, match=r"cannot read .*c\.jsonl: No such file"):
        write_corpus(config(source), tmp_path / "out", vanishing)
    before = inodes(tmp_path / "out")
    assert len(before) > 3
    moved.rename(gone)
    assert write_corpus(config(source), tmp_path / "out") == expected
    assert before.items() <= inodes(tmp_path / "out").items()
