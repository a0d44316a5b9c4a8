"""Shards written and mapped back; damage is found and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from calm_bench.config import Tokens
from calm_bench.fingerprint import file_digest
from calm_bench.tokens import DamagedShard, TokensError, TokensReport, TokenStream, load_tokenizer, write_tokens

Write = Callable[[list[str], Tokens], tuple[Path, TokensReport]]
TEXTS = ["one", "two é", "a longer third document", "4"] * 5
IDS = [token for text in TEXTS for token in [*text.encode(), 256]]


@pytest.mark.parametrize("shard_tokens", [1, 7, 40, len(IDS), 10**6])
def test_the_stream_is_the_documents_each_with_one_eos(write: Write, shard_tokens: int) -> None:
    folder, report = write(TEXTS, Tokens(shard_tokens=shard_tokens))
    stream = TokenStream.open(folder, "train")
    assert len(stream) == len(IDS) == report.tokens["train"]
    assert stream[:].tolist() == IDS
    assert stream[:].dtype == np.int64
    assert report.shards["train"] == -(-len(IDS) // shard_tokens)
    assert (report.vocab_size, report.dtype, stream.vocab_size, stream.eos_id) == (257, "uint16", 257, 256)
    assert report.bytes_per_token == {"train": 1.0, "validation": None, "test": None}


def test_slices_follow_the_rules_of_a_list(write: Write) -> None:
    stream = TokenStream.open(write(TEXTS, Tokens(shard_tokens=7))[0], "train")
    for start, stop in [(0, 5), (5, 9), (6, 30), (-4, None), (None, -3), (3, 3), (9, 2), (len(IDS), 10**9)]:
        assert stream[start:stop].tolist() == IDS[start:stop]
    with pytest.raises(TokensError, match="steps of 1"):
        stream[::2]
    starts = np.asarray([30, 0, 13])
    assert stream.gather(starts, 9).tolist() == [IDS[start : start + 9] for start in starts]
    with pytest.raises(IndexError):
        stream.gather(np.asarray([len(IDS) - 3]), 9)


def test_document_of_each_position(write: Write) -> None:
    stream = TokenStream.open(write(TEXTS, Tokens(shard_tokens=7))[0], "train")
    expected = [number for number, text in enumerate(TEXTS) for _ in range(len(text.encode()) + 1)]
    assert stream.document_of(np.arange(len(IDS))).tolist() == expected
    assert stream.document_of([[0, 4], [3, 20]]).shape == (2, 2)
    assert stream.num_documents == len(TEXTS)
    assert (stream[:][stream.document_ends - 1] == 256).all()
    for outside in (-1, len(IDS)):
        with pytest.raises(IndexError):
            stream.document_of([outside])


def test_empty_splits_open_and_unknown_ones_are_refused(write: Write) -> None:
    folder, _ = write(TEXTS, Tokens())
    stream = TokenStream.open(folder, "test")
    assert (len(stream), stream.num_documents, stream[0:4].tolist()) == (0, 0, [])
    with pytest.raises(TokensError, match="no split 'holdout'; it has train, validation, test"):
        TokenStream.open(folder, "holdout")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_big_vocabulary_needs_wider_tokens(write: Write, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"unknown": 0, "end": 1, **{f"word{number}": number for number in range(2, 2**16 + 1)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="unknown"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="unknown", eos_token="end")
    wrapped.save_pretrained(str(tmp_path / "wide"))
    folder, report = write(["word65536 word7", "word2"], Tokens(tokenizer=str(tmp_path / "wide")))
    assert (report.vocab_size, report.dtype) == (2**16 + 1, "uint32")
    assert TokenStream.open(folder, "train")[:].tolist() == [65536, 7, 1, 2, 1]


def test_bpe_is_trained_on_the_train_split_and_saved_with_the_tokens(write: Write) -> None:
    folder, report = write(TEXTS, Tokens(tokenizer="bpe", vocab_size=270))
    tokenizer = load_tokenizer(folder / "tokenizer")
    stream = TokenStream.open(folder, "train")
    first = stream[: int(stream.document_ends[0])].tolist()
    assert first[-1] == tokenizer.eos_id == stream.eos_id
    assert tokenizer.decode(first) == TEXTS[0]
    assert tokenizer.digest == report.tokenizer_digest
    assert report.vocab_size == tokenizer.vocab_size
    ratio = report.bytes_per_token["train"]
    assert ratio is not None
    assert ratio > 1


def test_writing_again_gives_the_same_bytes(write: Write, tmp_path: Path) -> None:
    folder, report = write(TEXTS, Tokens(shard_tokens=40))
    again = write_tokens(Tokens(shard_tokens=40), tmp_path / "corpus", tmp_path / "again")
    assert again == report
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def test_tokens_are_mapped_not_loaded(write: Write) -> None:
    folder, _ = write(["x" * 4_000_000], Tokens())
    before = pa.total_allocated_bytes()
    stream = TokenStream.open(folder, "train")
    assert stream[3_999_990:].tolist() == [120] * 10 + [256]
    assert pa.total_allocated_bytes() - before < 100_000


@pytest.mark.parametrize("name", ["train/shard-00001.arrow", "train/documents.arrow"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_damage_is_named_with_both_hashes(write: Write, name: str, damage: str) -> None:
    folder, _ = write(TEXTS, Tokens(shard_tokens=40))
    path = folder / name
    expected = file_digest(path)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(DamagedShard) as caught:
        TokenStream.open(folder, "train")
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    if damage != "remove":
        assert file_digest(path) in str(caught.value)
    TokenStream.open(folder, "validation")


def test_without_verification_truncation_is_still_found(write: Write) -> None:
    folder, _ = write(TEXTS, Tokens())
    path = folder / "train/shard-00000.arrow"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedShard):
        TokenStream.open(folder, "train", verify=False)


def test_a_folder_without_a_readable_manifest_is_refused(write: Write, tmp_path: Path) -> None:
    folder, _ = write(TEXTS, Tokens())
    manifest = json.loads((folder / "manifest.json").read_text())
    for content in ("{cut", "[]", json.dumps({**manifest, "format": 99})):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(TokensError, match=r"manifest\.json"):
            TokenStream.open(folder, "train")
    with pytest.raises(TokensError, match="no readable tokens"):
        TokenStream.open(tmp_path / "nowhere", "train")
