"""``AutoTokenizer`` on what we save for it: the same ids, without code of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from calm_bench.config import Tokens
from calm_bench.tokens import ByteTokenizer, Tokenizer, TokenizerError, build_tokenizer
from calm_bench.tokens.bpe import END_OF_TEXT
from calm_bench.tokens.byte_letters import byte_letters
from calm_bench.tokens.for_transformers import byte_backend, save_for_transformers

TEXTS = [f"the quick brown fox number {number} jumps over the lazy dog, naïvely\n" for number in range(50)]
STRANGE = f"  spaces\t\r\n🎉 é {END_OF_TEXT} don't \x00 end  ."
OURS = ["bytes", "bpe"]


def make(kind: str) -> Tokenizer:
    return build_tokenizer(Tokens(tokenizer=kind, vocab_size=300), TEXTS)


def opened(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


@pytest.mark.parametrize("kind", OURS)
def test_ids_texts_and_the_end_are_ours(kind: str, tmp_path: Path) -> None:
    tokenizer = make(kind)
    save_for_transformers(tokenizer, tmp_path)
    found = opened(tmp_path)
    assert (found.eos_token_id, len(found)) == (tokenizer.eos_id, tokenizer.vocab_size)
    for text in (*TEXTS[:3], STRANGE, ""):
        ids = tokenizer.encode(text)
        assert found(text)["input_ids"] == found.encode(text) == ids
        assert found.decode(ids) == text
    assert found.decode([*tokenizer.encode("ab"), tokenizer.eos_id], skip_special_tokens=True) == "ab"
    assert found.decode([tokenizer.eos_id]) == END_OF_TEXT


@given(st.lists(st.integers(0, 255), max_size=40))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_text_are_decoded_as_ours(ids: list[int]) -> None:
    assert BACKEND.decode(ids) == ByteTokenizer().decode(ids)


BACKEND = byte_backend()


def test_letters_are_those_of_byte_level_tokenizers() -> None:
    assert sorted(byte_letters()) == sorted(pre_tokenizers.ByteLevel.alphabet())


def test_nothing_of_ours_is_imported_to_read_it(tmp_path: Path) -> None:
    save_for_transformers(ByteTokenizer(), tmp_path)
    code = (
        "import sys; from transformers import AutoTokenizer; "
        "print(AutoTokenizer.from_pretrained('.', local_files_only=True).encode('é')); "
        "print([name for name in sys.modules if name.startswith('calm_bench')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[195, 169]", "[]"]


def test_versions_before_ours_know_the_class(tmp_path: Path) -> None:
    save_for_transformers(ByteTokenizer(), tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_tokenizer_of_transformers_is_saved_as_it_came(tmp_path: Path) -> None:
    save_for_transformers(make("bpe"), tmp_path / "source")
    tokenizer = build_tokenizer(Tokens(tokenizer=str(tmp_path / "source")), [])
    save_for_transformers(tokenizer, tmp_path / "saved")
    assert opened(tmp_path / "saved").encode(STRANGE) == tokenizer.encode(STRANGE)


def test_others_are_refused(tmp_path: Path) -> None:
    class Other:
        name = "words"

    with pytest.raises(TokenizerError, match="no files for the tokenizer words"):
        save_for_transformers(Other(), tmp_path)
