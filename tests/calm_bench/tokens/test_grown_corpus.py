"""Of a corpus that grew only the new text is encoded; the tokens are those of whoever encodes all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Corpus, MixtureSource, Tokens
from calm_bench.corpora import SPLITS, input_parts, write_corpus
from calm_bench.tokens import token_part, write_tokens
from calm_bench.tokens.bpe import BpeTokenizer
from calm_bench.tokens.earlier_ids import INDEX
from calm_bench.tokens.token_part import TokenizerFound, TokenPart

BYTES = Tokens(shard_tokens=1500)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """A tokenizer that was trained before, and stays as it is whatever the corpus."""
    folder = tmp_path_factory.mktemp("learned")
    BpeTokenizer.train(["document number naïve of some file"] * 3, 280).save(folder)
    return Tokens(tokenizer=str(folder), shard_tokens=1500)


def write_file(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    records = ({"text": f"document {number} of {name} naïve"} for number in range(60))
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def corpus(folder: Path, source: Path) -> Path:
    write_corpus(Corpus(source=str(source), validation_fraction=0.2, test_fraction=0.2), folder)
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files, each a part of the corpus, and each split of it a part of the tokens."""
    monkeypatch.setattr(input_parts, "PART_BYTES", 3000)
    for name in "abc":
        write_file(tmp_path / "source", name)
    return tmp_path / "source"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts whose text was encoded."""
    found: list[str] = []
    write = token_part._write

    def noted(tokenizer: TokenizerFound, part: TokenPart, folder: Path) -> dict[str, Any]:
        found.append(part.name)
        return write(tokenizer, part, folder)

    monkeypatch.setattr(token_part, "_write", noted)
    return found


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: content for name, content in named.items() if name.partition("/")[0] not in ("parts", "partial")}


def encodes(tmp_path: Path, config: Tokens, text: Path, encoded: list[str]) -> list[str]:
    """The parts that are encoded of a text, where ``before`` is finished; the tokens are as if all were."""
    encoded.clear()
    report = write_tokens(config, text, tmp_path / "after", earlier=[tmp_path / "none", tmp_path / "before"])
    found = sorted(encoded)
    assert write_tokens(config, text, tmp_path / "fresh") == report
    assert files(tmp_path / "after") == files(tmp_path / "fresh")
    return found


@pytest.mark.parametrize(("new", "number"), [("d", 3), ("ab", 1)])
def test_only_new_text_is_encoded(
    tmp_path: Path, source: Path, learned: Tokens, encoded: list[str], new: str, number: int
) -> None:
    write_tokens(learned, corpus(tmp_path / "old", source), tmp_path / "before")
    assert len(encoded) == 9
    write_file(source, new)
    expected = sorted(f"{split}-{number:05d}" for split in SPLITS)
    assert encodes(tmp_path, learned, corpus(tmp_path / "new", source), encoded) == expected


def test_another_tokenizer_or_layout(tmp_path: Path, source: Path, learned: Tokens, encoded: list[str]) -> None:
    text = corpus(tmp_path / "text", source)
    write_tokens(learned, text, tmp_path / "before")
    # Shards of another size hold the same ids.
    assert encodes(tmp_path, learned.model_copy(update={"shard_tokens": 400}), text, encoded) == []
    bpe = Tokens(tokenizer="bpe", vocab_size=300, shard_tokens=1500)
    assert len(encodes(tmp_path, bpe, text, encoded)) == 9


def test_a_tokenizer_that_learns_from_more_text_encodes_all(tmp_path: Path, source: Path, encoded: list[str]) -> None:
    bpe = Tokens(tokenizer="bpe", vocab_size=300, shard_tokens=1500)
    write_tokens(bpe, corpus(tmp_path / "old", source), tmp_path / "before")
    for name in "defghi":
        write_file(source, name)
    assert len(encodes(tmp_path, bpe, corpus(tmp_path / "new", source), encoded)) == 27


def test_bytes_are_in_no_list_since_they_are_the_text(tmp_path: Path, source: Path, encoded: list[str]) -> None:
    text = corpus(tmp_path / "text", source)
    write_tokens(BYTES, text, tmp_path / "before")
    assert json.loads((tmp_path / "before" / INDEX).read_text())["parts"] == []
    assert not list((tmp_path / "before").rglob("ids.bin"))
    assert encodes(tmp_path, BYTES, text, encoded) == []


def test_what_a_mixture_cut_is_not_taken(tmp_path: Path, source: Path, learned: Tokens, encoded: list[str]) -> None:
    write_file(tmp_path / "few", "z")
    members = (MixtureSource(source=str(source), weight=0.6), MixtureSource(source=str(tmp_path / "few"), weight=0.4))
    mixed = Corpus(mixture=members, validation_fraction=0.2, test_fraction=0.2)
    write_corpus(mixed, tmp_path / "mixed")
    write_tokens(learned, tmp_path / "mixed", tmp_path / "before")
    listed = json.loads((tmp_path / "before" / INDEX).read_text())["parts"]
    again = encodes(tmp_path, learned, tmp_path / "mixed", encoded)
    assert 0 < len(listed) < 12
    assert len(again) == 12 - len(listed)


@pytest.mark.parametrize("damage", ["train/shard-00000.arrow", "train/documents.arrow", "manifest.json", INDEX])
def test_what_is_damaged_is_encoded_again(
    tmp_path: Path, source: Path, learned: Tokens, encoded: list[str], damage: str
) -> None:
    text = corpus(tmp_path / "text", source)
    write_tokens(learned, text, tmp_path / "before")
    path = tmp_path / "before" / damage
    path.write_bytes(path.read_bytes()[:-9])
    found = encodes(tmp_path, learned, text, encoded)
    assert {name for name in found if name.startswith("train")} == {f"train-{number:05d}" for number in range(3)}


def test_parts_of_an_older_version_are_taken_and_not_listed(
    tmp_path: Path, source: Path, learned: Tokens, encoded: list[str]
) -> None:
    text = corpus(tmp_path / "text", source)
    expected = write_tokens(learned, text, tmp_path / "out")
    for record in (tmp_path / "out" / "parts").glob("train-0*/part.json"):
        found = json.loads(record.read_text())
        del found["found"]["text"]
        record.write_text(json.dumps(found))
    encoded.clear()
    assert write_tokens(learned, text, tmp_path / "out") == expected
    assert encoded == []
    assert len(json.loads((tmp_path / "out" / INDEX).read_text())["parts"]) == 6
