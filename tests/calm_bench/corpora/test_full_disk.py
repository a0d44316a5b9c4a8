"""A disk that is full while parts are written, and text that vanishes meanwhile: what was published stays, and the same
work goes on from it to the same bits. The disk is the limit of the kernel on the size of a file, of this process.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from calm_bench.config import Corpus, Quality, Tokens
from calm_bench.corpora import CorpusError, read_documents, write_corpus
from calm_bench.corpora import corpus_part as corpus_part_module
from calm_bench.corpora import input_parts as input_parts_module
from calm_bench.corpora import split_files as split_files_module
from calm_bench.corpora.document_filter import reason_to_leave_out
from calm_bench.tokens import TokenStream, write_tokens
from calm_bench.tokens import token_part as token_part_module

pytestmark = pytest.mark.slow


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Writing behind this many bytes of a file fails, as it does where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Modules that are imported meanwhile: compiled, they would stay cut off.
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes_none


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """A corpus of several parts, of which a later one is larger than those before it."""
    generator = random.Random(1)
    lengths = [200] * 900 + [60_000] * 6 + [200] * 300
    texts = ["".join(generator.choices("abcdefgh ", k=length)) for length in lengths]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    monkeypatch.setattr(input_parts_module, "PART_BYTES", 60_000)
    monkeypatch.setattr(split_files_module, "BATCH_BYTES", 20_000)
    monkeypatch.setattr(token_part_module, "PART_BATCHES", 1)
    return Corpus(source=str(tmp_path / "a.jsonl"), validation_fraction=0.1, test_fraction=0.1)


def published(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_ino for path in folder.glob("parts/*/part.json")}


def goes_on(work: Callable[[Path], object], folder: Path, limit: int) -> None:
    """Fails with a full disk, keeps what it has published, and leaves nothing else."""
    with files_of_at_most(limit), pytest.raises(OSError, match=r"File too large: make room, and .*/full'"):
        work(folder / "full")
    before = published(folder / "full")
    assert before
    assert not list((folder / "full" / "partial").iterdir())
    expected = work(folder / "expected")
    assert work(folder / "full") == expected
    assert before.items() <= published(folder / "full").items()


def test_a_corpus_goes_on_after_a_full_disk(tmp_path: Path, config: Corpus) -> None:
    goes_on(lambda folder: write_corpus(config, folder), tmp_path, 50_000)
    for split in ("train", "validation", "test"):
        assert list(read_documents(tmp_path / "full", split)) == list(read_documents(tmp_path / "expected", split))


@pytest.mark.parametrize("limit", [100_000, 150_000])
def test_tokens_go_on_after_a_full_disk(tmp_path: Path, config: Corpus, limit: int) -> None:
    """With the smaller limit a part is too large, with the larger one a shard."""
    write_corpus(config, tmp_path / "corpus")
    tokens = Tokens(shard_tokens=90_000)
    goes_on(lambda folder: write_tokens(tokens, tmp_path / "corpus", folder), tmp_path, limit)
    digests = {TokenStream.open(tmp_path / name, "train").digest for name in ("full", "expected")}
    assert len(digests) == 1


def test_a_corpus_that_vanishes_under_the_tokens_is_named(tmp_path: Path, config: Corpus) -> None:
    write_corpus(config, tmp_path / "corpus")
    expected = write_tokens(Tokens(), tmp_path / "corpus", tmp_path / "expected")
    gone = sorted((tmp_path / "corpus" / "train").iterdir())[2]

    def vanishing(work: Callable[[object], object], parts: list[object]) -> Iterator[object]:
        for number, part in enumerate(parts):
            if number == 3 and gone.exists():
                gone.rename(tmp_path / "elsewhere")
            yield work(part)

    with pytest.raises(CorpusError, match=rf"{gone.name} is not a readable corpus file"):
        write_tokens(Tokens(), tmp_path / "corpus", tmp_path / "out", vanishing)
    before = published(tmp_path / "out")
    assert len(before) >= 3
    (tmp_path / "elsewhere").rename(gone)
    assert write_tokens(Tokens(), tmp_path / "corpus", tmp_path / "out") == expected
    assert before.items() <= published(tmp_path / "out").items()


@pytest.mark.parametrize("how", ["cut short", "longer", "gone"])
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz"])
def test_a_file_that_changes_while_it_is_read_is_named_and_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, how: str
) -> None:
    generator = random.Random(1)
    records = [json.dumps({"text": "".join(generator.choices("abcdef ", k=2000))}) + "\n" for _ in range(3000)]
    path, content = tmp_path / f"a.{kind}", "".join(records).encode()
    path.write_bytes(gzip.compress(content, 1) if kind == "jsonl.gz" else content)
    look = reason_to_leave_out
    seen = 0

    def changing(text: str, quality: Quality) -> str | None:
        nonlocal seen
        seen += 1
        if seen == 1000:
            if how == "gone":
                path.unlink()
            else:
                os.truncate(path, path.stat().st_size // 2 if how == "cut short" else path.stat().st_size + 10)
        return look(text, quality)

    monkeypatch.setattr(corpus_part_module, "reason_to_leave_out", changing)
    wrong = "No such file" if how == "gone" else "has changed since it was looked at"
    with pytest.raises(CorpusError, match=rf"a\.{kind}.*{wrong}"):
        write_corpus(Corpus(source=str(path), validation_fraction=0, test_fraction=0), tmp_path / "out")
