"""Tokens of many parts are those of one, whoever makes them, and however often; memory does not grow with them."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from calm_bench.config import Tokens
from calm_bench.corpora import SPLITS, CorpusError, Split
from calm_bench.corpora import split_files as split_files_module
from calm_bench.corpora.split_files import SplitWriter
from calm_bench.published_parts import PartMapper, in_this_process
from calm_bench.tokens import TokensError, TokenStream, build_tokenizer, write_tokens
from calm_bench.tokens import token_part as token_part_module
from calm_bench.tokens.byte_ids import read_byte_ids, write_byte_ends
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from calm_bench.tokens.earlier_ids import INDEX
from calm_bench.tokens.pack import shards_of, take
from calm_bench.tokens.token_part import TokenPart, TokenPartFound, check_ids

TEXTS = [f"document {number} naïve 数 " + "some words " * (number % 13) for number in range(700)]
BYTES = Tokens(shard_tokens=4000)
BPE = Tokens(tokenizer="bpe", vocab_size=300, shard_tokens=4000)


def write_split(folder: Path, split: Split, texts: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    with SplitWriter(folder / f"{split}.arrow") as writer:
        for text in texts:
            writer.add(text.encode())


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some hundred record batches, and an empty split."""
    monkeypatch.setattr(split_files_module, "BATCH_BYTES", 1000)
    folder = tmp_path / "corpus"
    for split, texts in {"train": TEXTS, "validation": TEXTS[:50], "test": []}.items():
        write_split(folder, split, texts)  # type: ignore[arg-type]
    return folder


def shuffled(work: Callable[[Any], Any], parts: Sequence[Any]) -> Generator[Any, None, None]:
    yield from in_this_process(work, random.Random(7).sample(parts, len(parts)))


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: content for name, content in named.items() if name.partition("/")[0] not in ("parts", "partial")}


@pytest.mark.parametrize("config", [BYTES, BPE], ids=["bytes", "bpe"])
def test_neither_parts_nor_their_order_change_a_bit(
    tmp_path: Path, corpus: Path, config: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_part_module, "PART_BATCHES", 10**6)
    whole = write_tokens(config, corpus, tmp_path / "whole")
    assert whole.shards["train"] > 3
    for name, batches, at_once in [("one", 1, 300), ("three", 3, 10**6)]:
        monkeypatch.setattr(token_part_module, "PART_BATCHES", batches)
        monkeypatch.setattr(token_part_module, "TEXT_AT_ONCE", at_once)
        assert write_tokens(config, corpus, tmp_path / name, shuffled) == whole
        written, expected = files(tmp_path / name), files(tmp_path / "whole")
        # What later tokens are told of the parts is told of these; of bytes nothing is.
        assert (written.pop(INDEX) == expected.pop(INDEX)) == (config is BYTES)
        assert written == expected


def test_the_stream_is_what_the_tokenizer_says(tmp_path: Path, corpus: Path) -> None:
    write_tokens(BPE, corpus, tmp_path / "out")
    tokenizer = build_tokenizer(BPE, TEXTS)
    stream = TokenStream.open(tmp_path / "out", "train")
    expected = [[*tokenizer.encode(text), tokenizer.eos_id] for text in TEXTS]
    assert stream[:].tolist() == [token for ids in expected for token in ids]
    assert stream.document_ends.tolist() == np.cumsum([len(ids) for ids in expected]).tolist()


@pytest.mark.parametrize("cut", [501, 4000, 10**6])
def test_ids_of_bytes_are_read_from_any_place_of_the_text(tmp_path: Path, corpus: Path, cut: int) -> None:
    write_tokens(Tokens(shard_tokens=cut), corpus, tmp_path / "out")
    stream = TokenStream.open(tmp_path / "out", "train")
    encoded, lengths = ByteTokenizer().encode_documents(TEXTS)
    assert stream[:].tolist() == encoded.tolist()
    assert stream.document_ends.tolist() == np.cumsum(lengths).tolist()


def test_empty_texts_and_a_sliced_column_have_their_ids() -> None:
    texts = ["left out", "", "é", "", "no"]
    column = pa.array(texts).slice(1, 4)
    expected, lengths = ByteTokenizer().encode_documents(texts[1:])
    ends = io.BytesIO()
    assert write_byte_ends([column, column], ends) == {"tokens": 16, "documents": 8, "bytes": 8}
    assert np.frombuffer(ends.getvalue(), np.int64).tolist() == np.cumsum([*lengths, *lengths]).tolist()
    for start in range(16):
        for stop in range(start + 1, 17):
            out = np.full(stop - start, 999, np.uint16)
            read_byte_ids([column, column], start, out)
            assert out.tolist() == [*expected, *expected][start:stop]
    with pytest.raises(CorpusError, match="it has changed"):
        read_byte_ids([column], 1, np.empty(8, np.uint16))


class Stopped(Exception):
    pass


def stopping(after: int) -> PartMapper:
    """Stops in the middle of the first work of more than ``after`` parts."""

    def mapper(work: Callable[[Any], Any], parts: Sequence[Any]) -> Generator[Any, None, None]:
        yield from in_this_process(work, parts[:after])
        if len(parts) > after:
            raise Stopped

    return mapper


def inodes(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_ino for path in folder.glob("parts/*/part.json")}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("config", [BYTES, BPE], ids=["bytes", "bpe"])
def test_what_was_published_stays_and_what_is_damaged_is_made_again(
    tmp_path: Path, corpus: Path, config: Tokens
) -> None:
    expected = write_tokens(config, corpus, tmp_path / "expected")
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        write_tokens(config, corpus, out, stopping(12))
    before = inodes(out)
    assert len(before) == 13
    assert (out / "parts/train-00003/ids.bin").is_file() == (config is BPE)
    flip(out / "parts/train-00003" / ("ids.bin" if config is BPE else "ends.bin"))
    (out / "parts/train-00004/part.json").write_text("{")
    (out / "parts/train-00005/ends.bin").unlink()
    assert write_tokens(config, corpus, out) == expected
    assert files(out) == files(tmp_path / "expected")
    after = inodes(out)
    assert {part for part in before if after[part] != before[part]} == {f"train-{number:05d}" for number in (3, 4, 5)}
    flip(out / "parts/train-shard-00001/shard-00001.arrow")
    assert write_tokens(config, corpus, out) == expected
    assert files(out) == files(tmp_path / "expected")
    again = inodes(out)
    assert {part for part in after if again[part] != after[part]} == {"train-shard-00001"}


def test_parts_of_another_corpus_or_tokenizer_are_not_taken(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    write_tokens(BYTES, corpus, out)
    other = BPE.model_copy(update={"vocab_size": 270})
    for config in (BPE, other):
        assert write_tokens(config, corpus, out) == write_tokens(config, corpus, tmp_path / str(config.vocab_size))
    write_split(corpus, "train", [text.upper() for text in TEXTS])
    again = write_tokens(BPE, corpus, out)
    assert again == write_tokens(BPE, corpus, tmp_path / "new")
    assert files(out) == files(tmp_path / "new")
    write_tokens(BYTES, corpus, out)
    assert TokenStream.open(out, "train")[: len(TEXTS[0].encode())].tolist() == [*TEXTS[0].upper().encode()]


def found_part(index: int, tokens: int) -> TokenPartFound:
    return TokenPartFound(TokenPart("train", index, Path("a"), index, index + 1, (0, 0)), Path("b"), tokens, 1, 1)


@pytest.mark.parametrize("sizes", [[], [0], [0, 5, 0, 3], [10], [11], [25, 1, 4], [3] * 20])
def test_shards_are_full_and_miss_nothing(sizes: list[int]) -> None:
    parts = [found_part(index, tokens) for index, tokens in enumerate(sizes)]
    shards = list(shards_of("train", take(parts, None), 10))
    counts = [sum(one.count for one in shard.slices) for shard in shards]
    assert counts[:-1] == [10] * (len(counts) - 1)
    assert sum(counts) == sum(sizes)
    assert [shard.index for shard in shards] == list(range(max(1, -(-sum(sizes) // 10))))
    taken = [
        (one.part.part.index, one.start + at) for shard in shards for one in shard.slices for at in range(one.count)
    ]
    assert taken == [(index, at) for index, tokens in enumerate(sizes) for at in range(tokens)]


class Wrong(ByteTokenizer):
    vocab_size = 100


def test_ids_outside_the_vocabulary_are_refused() -> None:
    ids, lengths = ByteTokenizer().encode_documents(["", "é", ""])
    assert (ids.tolist(), lengths.tolist()) == ([256, 195, 169, 256, 256], [1, 3, 1])
    check_ids(ids, ByteTokenizer())
    check_ids(ids[:0], Wrong())
    with pytest.raises(TokensError, match="gave the id 256 outside its vocabulary of 100"):
        check_ids(ids, Wrong())
    with pytest.raises(TokensError, match="outside its vocabulary"):
        check_ids(np.asarray([3, -1]), Wrong())


def test_memory_does_not_grow_with_tiny_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_files_module, "BATCH_BYTES", 50_000)
    monkeypatch.setattr(token_part_module, "DOCUMENTS_AT_ONCE", 20_000)
    peaks = []
    for count in (100_000, 400_000):
        folder = tmp_path / str(count)
        for split in SPLITS:
            write_split(folder, split, ["a"] * (count if split == "train" else 0))
        tracemalloc.start()
        try:
            report = write_tokens(Tokens(shard_tokens=50_000), folder, tmp_path / f"tokens-{count}")
            peaks.append(tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes())
        finally:
            tracemalloc.stop()
        assert report.documents["train"] == count
    assert peaks[1] < 1.3 * peaks[0]
