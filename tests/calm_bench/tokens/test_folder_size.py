"""Sizes of vocabularies in folders, against the tokenizers loaded from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calm_bench.tokens.bpe import END_OF_TEXT, BpeTokenizer
from calm_bench.tokens.byte_tokenizer import ByteTokenizer
from calm_bench.tokens.choose_tokenizer import load_tokenizer
from calm_bench.tokens.folder_size import folder_vocab_size

TEXTS = [f"the quick brown fox number {number} jumps over the lazy dog\n" for number in range(50)]


def ours(folder: Path) -> int:
    BpeTokenizer.train(TEXTS, 280).save(folder)
    return load_tokenizer(folder).vocab_size


def of_bytes(folder: Path) -> int:
    ByteTokenizer().save(folder)
    return 257


def of_transformers(folder: Path) -> int:
    from transformers import PreTrainedTokenizerFast

    from calm_bench.tokens.hugging_face import HuggingFaceTokenizer

    BpeTokenizer.train(TEXTS, 280).save(folder / "made")
    file = str(folder / "made" / "tokenizer.json")
    backend = PreTrainedTokenizerFast(tokenizer_file=file, eos_token=END_OF_TEXT, pad_token="<pad>")
    backend.add_special_tokens({"bos_token": "<s>"})
    backend.add_tokens(["another", "more"])
    backend.save_pretrained(str(folder))
    return HuggingFaceTokenizer.from_pretrained(str(folder)).vocab_size


@pytest.mark.parametrize("make", [ours, of_bytes, of_transformers])
def test_sizes_are_those_of_the_loaded_tokenizer(tmp_path: Path, make: Callable[[Path], int]) -> None:
    folder = tmp_path / "gpt2-something"
    folder.mkdir()
    assert folder_vocab_size(folder) is None
    assert make(folder) == folder_vocab_size(folder)


def test_a_special_token_that_is_only_named_gets_the_next_id(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 4}}, "added_tokens": []}))
    assert folder_vocab_size(tmp_path) == 5
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<e>", "pad_token": {"content": "a"}}))
    assert folder_vocab_size(tmp_path) == 6


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    assert folder_vocab_size(tmp_path) is None
