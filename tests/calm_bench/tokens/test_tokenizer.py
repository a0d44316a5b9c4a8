"""All three kinds of tokenizer, real ones, made here."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calm_bench.config import Tokens
from calm_bench.tokens import ByteTokenizer, Tokenizer, TokenizerError, build_tokenizer, load_tokenizer
from calm_bench.tokens.bpe import END_OF_TEXT, BpeTokenizer, _learnable
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer

TEXTS = [f"the quick brown fox number {number} jumps over the lazy dog, naïvely\n" for number in range(50)]
STRANGE = f"  spaces\t\r\n🎉 é {END_OF_TEXT} \x00 end  "


def make_bytes(folder: Path) -> Tokenizer:
    return build_tokenizer(Tokens(tokenizer="bytes"), [])


def make_bpe(folder: Path) -> Tokenizer:
    return build_tokenizer(Tokens(tokenizer="bpe", vocab_size=300), TEXTS)


def make_hugging_face(folder: Path, eos: str | None = END_OF_TEXT) -> Tokenizer:
    from transformers import PreTrainedTokenizerFast

    BpeTokenizer.train(TEXTS, 300).save(folder / "bpe")
    backend = PreTrainedTokenizerFast(tokenizer_file=str(folder / "bpe" / "tokenizer.json"), eos_token=eos)
    backend.add_special_tokens({"bos_token": "<s>"})
    backend.save_pretrained(str(folder / "source-tokenizer"))
    return build_tokenizer(Tokens(tokenizer=str(folder / "source-tokenizer")), [])


@pytest.fixture(params=[make_bytes, make_bpe, make_hugging_face])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    make: Callable[[Path], Tokenizer] = request.param
    return make(tmp_path)


def test_it_keeps_the_contract(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for text in (*TEXTS[:3], STRANGE, ""):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= token < tokenizer.vocab_size for token in ids)
        assert tokenizer.eos_id not in ids
        assert tokenizer.decode([*ids, tokenizer.eos_id]) == text
    assert tokenizer.encode_batch([*TEXTS[:3], ""]) == [*map(tokenizer.encode, TEXTS[:3]), []]
    assert tokenizer.encode_batch([]) == []
    assert 0 <= tokenizer.eos_id < tokenizer.vocab_size


def ids_of(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]


def test_documents_are_the_ids_of_each_and_an_end(tokenizer: Tokenizer) -> None:
    texts = [*TEXTS[:5], "", STRANGE, "數 <s> </s>"]
    ids, lengths = tokenizer.encode_documents(texts)
    assert ids.tolist() == [*chain(*ids_of(tokenizer, texts))]
    assert lengths.tolist() == [*map(len, ids_of(tokenizer, texts))]
    assert [len(found) for found in tokenizer.encode_documents([])] == [0, 0]


def test_what_transformers_does_to_a_text_is_done_to_many(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    class Shouting(PreTrainedTokenizerFast):
        def __call__(self, text: list[str], **settings: Any) -> Any:
            return super().__call__([one.upper() for one in text], **settings)

    TRAINED.save(tmp_path)
    shouting = Shouting(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token=END_OF_TEXT)
    tokenizer = HuggingFaceTokenizer(shouting, "shouting")
    assert tokenizer._library is None
    expected = ids_of(TRAINED, [text.upper() for text in TEXTS])
    assert tokenizer.encode_documents(TEXTS)[0].tolist() == [*chain(*expected)]
    quiet = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token=END_OF_TEXT)
    # Settings that a call leaves in the tokenizer of transformers.
    quiet(TEXTS[:2], truncation=True, max_length=3)
    tokenizer = HuggingFaceTokenizer(quiet, "quiet")
    assert tokenizer._library is not None
    assert tokenizer.encode_documents(TEXTS)[0].tolist() == [*chain(*ids_of(TRAINED, TEXTS))]


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    for name in ("name", "vocab_size", "eos_id", "digest"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    assert loaded.encode(STRANGE) == tokenizer.encode(STRANGE)
    loaded.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").digest == tokenizer.digest
    # A folder of ours is also a tokens.tokenizer setting.
    assert build_tokenizer(Tokens(tokenizer=str(tmp_path / "saved")), []).digest == tokenizer.digest


@pytest.mark.slow
@given(st.text(max_size=60))
@settings(max_examples=60)
def test_bytes_and_bpe_lose_no_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    for tokenizer in (ByteTokenizer(), TRAINED):
        assert tokenizer.decode(tokenizer.encode(text)) == text


TRAINED = BpeTokenizer.train(TEXTS, 300)


def test_bytes_are_bytes() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aé") == [97, 0xC3, 0xA9]
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (257, 256)
    assert tokenizer.decode([97, 0xC3]) == "a\N{REPLACEMENT CHARACTER}"


def test_bpe_learns_the_same_merges_each_time_and_stops_where_nothing_repeats() -> None:
    assert BpeTokenizer.train(iter(TEXTS), 300).digest == TRAINED.digest
    assert BpeTokenizer.train(TEXTS, 280).digest != TRAINED.digest
    assert len(TRAINED.encode(TEXTS[0])) < len(TEXTS[0].encode())
    assert TRAINED.vocab_size == 300
    assert BpeTokenizer.train(["ab"], 5000).vocab_size < 300


def test_a_tokenizer_without_eos_is_refused_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"source-tokenizer has no EOS token.* set its (\w+) and save") as refused:
        make_hugging_face(tmp_path, eos=None)
    from transformers import AutoTokenizer

    named = re.search(r"set its (\w+) and save it into a folder of your own$", str(refused.value))
    assert named is not None, refused.value
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "source-tokenizer"))
    setattr(tokenizer, named[1], "<s>")
    tokenizer.save_pretrained(str(tmp_path / "own"))
    assert build_tokenizer(Tokens(tokenizer=str(tmp_path / "own")), []).decode([tokenizer.bos_token_id]) is not None


def test_a_hugging_face_tokenizer_covers_added_tokens_and_shows_no_path(tmp_path: Path) -> None:
    tokenizer = make_hugging_face(tmp_path)
    assert tokenizer.name == "source-tokenizer"
    assert tokenizer.vocab_size == 301
    assert tokenizer.encode("<s>") != [300]


def test_what_is_no_tokenizer_is_refused_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TokenizerError, match="did you mean 'bytes'"):
        build_tokenizer(Tokens(tokenizer="byte"), [])
    with pytest.raises(TokenizerError, match=r"tokens\.tokenizer="):
        build_tokenizer(Tokens(tokenizer=str(tmp_path)), [])


@pytest.mark.parametrize("files", [[], ["tokenizer_config.json"], ["config.json"], ["vocab.json", "merges.txt"]])
def test_a_folder_without_tokenizer_json_says_which_file_to_bring(files: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("{}")
    with pytest.raises(TokenizerError, match=r"mine has no (tokenizer\.json): bring all files that save_pretrained"):
        build_tokenizer(Tokens(tokenizer=str(folder)), [])
    tokenizer = make_hugging_face(tmp_path)
    shutil.copytree(tmp_path / "source-tokenizer", folder, dirs_exist_ok=True)
    assert build_tokenizer(Tokens(tokenizer=str(folder)), []).digest == tokenizer.digest


def test_the_folder_of_a_model_says_where_its_tokenizer_is(tmp_path: Path) -> None:
    tokenizer = make_hugging_face(tmp_path)
    (tmp_path / "source-tokenizer").rename(tmp_path / "tokenizer")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"in a folder of its own: name (\S+)$") as refused:
        build_tokenizer(Tokens(tokenizer=str(tmp_path)), [])
    named = str(refused.value).rpartition(" ")[2]
    assert build_tokenizer(Tokens(tokenizer=named), []).digest == tokenizer.digest


def test_a_sentencepiece_model_alone_asks_for_its_own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sentencepiece is installed, transformers reads it; elsewhere it would ask for tiktoken, which does not."""
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(TokenizerError, match=r"pip install sentencepiece, or bring the folder that save_pretrained"):
        build_tokenizer(Tokens(tokenizer=str(tmp_path)), [])
    tokenizer = make_hugging_face(tmp_path)
    tokenizer.save(tmp_path)
    assert build_tokenizer(Tokens(tokenizer=str(tmp_path)), []).vocab_size == tokenizer.vocab_size


def test_a_changed_or_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    TRAINED.save(tmp_path)
    BpeTokenizer.train(TEXTS, 280).save(tmp_path / "other")
    (tmp_path / "tokenizer.json").write_bytes((tmp_path / "other" / "tokenizer.json").read_bytes())
    with pytest.raises(TokenizerError, match="damaged"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="no readable tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "calm_tokenizer.json").write_text(json.dumps({"kind": "unheard of"}))
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_word_without_end_takes_time_in_proportion_to_its_length() -> None:
    """Encoded data are one word; learned from whole, 50,000 letters took 30 times as long as the same in pieces."""
    numbers = random.Random(0)
    letters = "".join(numbers.choices("abcdefghijklmnopqrstuvwxyz", k=50_000))

    def seconds(text: str) -> float:
        # Not the time in which others have the processor.
        begun = time.process_time()
        BpeTokenizer.train([text], 4000)
        return time.process_time() - begun

    pieces = " ".join(letters[at : at + 32] for at in range(0, len(letters), 32))
    assert seconds(letters) < 6 * seconds(pieces)
    text = f"before {letters} after, {'long ' * 500}"
    trained = BpeTokenizer.train([text], 400)
    assert trained.decode(trained.encode(text)) == text


@pytest.mark.parametrize("unit", [" \t", "\u00a0", "\x1c!"])
def test_white_space_without_end_is_no_longer_a_word_than_others(unit: str) -> None:
    """The square of its length: 40,000 spaces and tabs took 3.6 s, and two million would have taken hours."""
    text = f"a{unit * 30_000}b"

    def seconds(given: str) -> float:
        begun = time.process_time()
        BpeTokenizer.train(["some text here " * 50, given], 300)
        return time.process_time() - begun

    pieces = "x".join(text[at : at + 32] for at in range(0, len(text), 32))
    assert seconds(text) < 6 * seconds(pieces)
    trained = BpeTokenizer.train([text], 300)
    assert trained.decode(trained.encode(text)) == text


def test_only_words_without_end_are_learned_in_pieces() -> None:
    """Vocabularies of other texts stay as they were; those without spaces have words too."""
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    for text in ("日本語の文章、" * 400, "https://a.b/" + "c/1-" * 900, "word " * 900):
        assert "".join(_learnable(text, split)) == text
        assert max(map(len, _learnable(text, split))) == len(text)
    parts = list(_learnable(f"an {'x' * 1500} end", split))
    assert "".join(parts) == f"an {'x' * 1500} end"
    assert max(map(len, parts)) == 32
