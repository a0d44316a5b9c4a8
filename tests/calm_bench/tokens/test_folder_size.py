"""Sizes of vocabularies in folders, against the tokenizers loaded from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Tokens
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


TOKEN = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("tokenizer.json", {"added_tokens": [{"id": 900, "content": "<x>", **TOKEN}]}),
        ("added_tokens.json", {"<y>": 700}),
        ("special_tokens_map.json", {"pad_token": "<new>", "additional_special_tokens": ["<a>", "<b>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": ["<a>", "<b>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"image_token": "<a>"}}),
        ("tokenizer_config.json", {"additional_special_tokens": ["<a>"]}),
        ("tokenizer_config.json", {"pad_token": {"content": "<a>", "__type": "AddedToken", **TOKEN}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"900": {"content": "<z>", **TOKEN}}}),
    ],
)
def test_tokens_that_other_files_add(tmp_path: Path, file: str, changes: dict[str, Any]) -> None:
    from calm_bench.tokens.hugging_face import HuggingFaceTokenizer

    of_transformers(tmp_path)
    kept = json.loads((tmp_path / "tokenizer_config.json").read_text())
    # As older versions and other programs write it, without the list of all that was added.
    kept.pop("added_tokens_decoder", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(kept))
    path = tmp_path / file
    before = json.loads(path.read_text()) if path.is_file() else {}
    if file == "tokenizer.json":
        changes = {"added_tokens": before["added_tokens"] + changes["added_tokens"]}
    path.write_text(json.dumps(before | changes))
    found = folder_vocab_size(tmp_path)
    assert found == HuggingFaceTokenizer.from_pretrained(str(tmp_path)).vocab_size
    assert found != 283, "something was added"


def unigram(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("settings", "config", "adds"),
    [
        ({"tokenizer_class": "T5Tokenizer"}, None, True),
        ({"tokenizer_class": "MBartTokenizer"}, None, True),
        ({}, {"model_type": "t5", "vocab_size": 32128}, True),
        ({"model_specific_special_tokens": {"image_token": "<image>"}}, None, True),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {"model_type": "t5", "vocab_size": 32128}, False),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, None, False),
        ({}, None, False),
    ],
)
def test_tokens_that_the_class_adds(
    tmp_path: Path, settings: dict[str, Any], config: dict[str, Any] | None, adds: bool
) -> None:
    from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
    from pipelines.study.price import assumed_vocab_size

    unigram(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", **settings}))
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = HuggingFaceTokenizer.from_pretrained(str(tmp_path)).vocab_size
    assert assumed_vocab_size(Tokens(tokenizer=str(tmp_path))) == loaded
    assert (loaded > 45) == adds, "transformers does as it did"
    assert folder_vocab_size(tmp_path) == (None if adds else loaded)


def test_a_special_token_that_is_only_named_gets_the_next_id(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}))
    assert folder_vocab_size(tmp_path) == 2
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<e>", "pad_token": {"content": "a"}}))
    assert folder_vocab_size(tmp_path) == 3


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    assert folder_vocab_size(tmp_path) is None
