"""Folders of models and tokenizers that cannot be read: what Git LFS left, other encodings, files cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from calm_bench.config import LanguageModel
from calm_bench.folder_signs import model_fault, tokenizer_fault
from calm_bench.lm.folder import build_language_model
from calm_bench.opening import open_network, open_vocabulary
from calm_bench.tensor_files import read_tensors
from calm_bench.tokens.bpe import BpeTokenizer
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from calm_bench.tokens.tokenizer import TokenizerError
from calm_bench.weights import WeightsError

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"
TEXTS = [f"the quick brown fox number {number}\n" for number in range(30)]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer as transformers saves one."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "tokens"
    BpeTokenizer.train(TEXTS, 280).save(folder / "made")
    file = str(folder / "made" / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=file, eos_token="</s>").save_pretrained(str(folder))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of this project with its tokenizer."""
    folder = tmp_path / "model"
    config = LanguageModel(kind="token", hidden_size=16, intermediate_size=16, num_layers=1, num_attention_heads=2)
    build_language_model(config, 280, None, 0).save(folder)
    BpeTokenizer.train(TEXTS, 280).save(folder / "tokenizer")
    return folder


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer/calm_tokenizer.json", "tokenizer/tokenizer.json"]
)
def test_a_clone_without_git_lfs_is_told_to_pull(name: str, model: Path) -> None:
    content = (model / name).read_bytes()
    assert model_fault(model) is None
    (model / name).write_text(POINTER)
    assert str(model_fault(model)) == (
        f"{model / name} is a Git LFS pointer and not the file itself: run `git lfs pull` where it was cloned"
    )
    with pytest.raises((WeightsError, TokenizerError), match="git lfs pull"):
        open_network(model, "cpu") if "tokenizer" not in name else open_vocabulary(model)
    (model / name).write_bytes(content)
    assert open_network(model, "cpu").vocab_size == 280


def test_a_pointer_in_place_of_a_pickle_is_not_called_code(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_text(POINTER)
    with pytest.raises(WeightsError, match="git lfs pull"):
        read_tensors(tmp_path, pickles=True)


def test_only_files_that_are_read_count(model: Path, tokenizer: Path) -> None:
    (model / "pytorch_model.bin").write_text(POINTER)
    (model / "picture.png").write_text(POINTER)
    assert model_fault(model) is None, "the safetensors were pulled"
    (tokenizer / "model.safetensors").write_text(POINTER)
    (tokenizer / "tokenizer.model").write_text(POINTER)
    assert tokenizer_fault(tokenizer) is None, "its tokenizer.json was"
    assert model_fault(tokenizer) is not None
    assert HuggingFaceTokenizer.from_pretrained(str(tokenizer)).vocab_size == 281


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("encoding", "length", "message"),
    [
        ("utf-16", None, "UTF-16 text, .*iconv -f UTF-16"),
        ("utf-8-sig", None, "no JSON .*BOM"),
        ("utf-8", 60, "no JSON .*it is damaged"),
        ("utf-8", 0, "no JSON .*it is damaged"),
    ],
)
def test_tokenizers_in_another_encoding_or_cut_off(
    name: str, encoding: str, length: int | None, message: str, tokenizer: Path
) -> None:
    text = (tokenizer / name).read_text()
    (tokenizer / name).write_text(text[:length], encoding=encoding)
    with pytest.raises(TokenizerError, match=rf"{name} is {message}"):
        HuggingFaceTokenizer.from_pretrained(str(tokenizer))
