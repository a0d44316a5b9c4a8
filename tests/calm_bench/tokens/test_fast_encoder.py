"""Workers of parts encode by the library below transformers, where that gives the same ids."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from calm_bench.config import Tokens
from calm_bench.corpora.split_files import SplitWriter
from calm_bench.tokens import build_tokenizer
from calm_bench.tokens.bpe import END_OF_TEXT, BpeTokenizer
from calm_bench.tokens.fast_encoder import FastEncoder
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from calm_bench.tokens.token_part import make_tokenizer, token_parts, write_token_part

TEXTS = [f"the quick brown fox number {number} jumps </s> over {END_OF_TEXT} the lazy dog\n" for number in range(50)]
WORKER = """
import pickle, sys
from calm_bench.tokens.token_part import write_token_part

tokenizer, folder, part = pickle.loads(bytes.fromhex(sys.argv[1]))
print(write_token_part(tokenizer, folder, (), part).tokens)
print(sorted({"transformers", "torch", "tokenizers"} & set(sys.modules)))
"""


def saved_by_transformers(folder: Path, **settings: Any) -> Path:
    from transformers import PreTrainedTokenizerFast

    BpeTokenizer.train(TEXTS, 300).save(folder / "bpe")
    backend = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "bpe" / "tokenizer.json"), eos_token=END_OF_TEXT, bos_token="<s>", **settings
    )
    backend(TEXTS[:2], truncation=True, max_length=4, padding="max_length")
    backend.save_pretrained(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.slow
def test_a_worker_of_parts_imports_no_transformers(tmp_path: Path) -> None:
    import pickle

    source = saved_by_transformers(tmp_path, pad_token=END_OF_TEXT)
    corpus, work = tmp_path / "corpus", tmp_path / "work"
    for folder in (corpus, work):
        folder.mkdir()
    for split, texts in {"train": TEXTS, "validation": [], "test": []}.items():
        with SplitWriter(corpus / f"{split}.arrow") as writer:
            for text in texts:
                writer.add(text.encode())
    config = Tokens(tokenizer=str(source))
    made = make_tokenizer(config, corpus, work)
    assert made.by_fast_encoder
    part = next(token_parts(corpus))
    call = pickle.dumps((made, work, part)).hex()
    said = subprocess.run([sys.executable, "-c", WORKER, call], capture_output=True, text=True, check=True).stdout
    through_transformers = build_tokenizer(config, [])
    expected = [*chain.from_iterable([*through_transformers.encode(text), made.eos_id] for text in TEXTS)]
    assert said.splitlines() == [str(len(expected)), "['tokenizers']"]
    found = write_token_part(made, work, (), part)
    import numpy as np

    ids = np.empty(found.tokens, made.dtype)
    found.read_ids(0, ids)
    assert ids.tolist() == expected


def test_another_tokenizer_in_the_file_is_not_taken_for_the_same(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer.from_pretrained(str(saved_by_transformers(tmp_path, pad_token=END_OF_TEXT)))
    tokenizer.save(tmp_path / "own")
    assert tokenizer.fast_encoder_agrees(tmp_path / "own")
    BpeTokenizer.train(["entirely other words"] * 50, 300).save(tmp_path / "other")
    assert not tokenizer.fast_encoder_agrees(tmp_path / "other")


def test_nothing_is_cut_off_padded_or_taken_for_an_end(tmp_path: Path) -> None:
    saved = saved_by_transformers(tmp_path, pad_token=END_OF_TEXT)
    own = BpeTokenizer.train(TEXTS, 300)
    encoder = FastEncoder.load(saved, own.eos_id)
    ids, lengths = encoder.encode_documents(["", *TEXTS])
    expected, expected_lengths = own.encode_documents(["", *TEXTS])
    assert (ids.tolist(), lengths.tolist()) == (expected.tolist(), expected_lengths.tolist())
