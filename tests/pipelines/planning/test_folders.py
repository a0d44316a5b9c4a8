"""Folders that a study names are looked at before anything is trained: not after the trainings before they are read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calm_bench.overrides import ConfigurationError, assign
from calm_bench.tokens.bpe import BpeTokenizer
from calm_bench.tokens.hugging_face import HuggingFaceTokenizer
from pipelines.app.cli import app
from pipelines.planning.preflight import check_study
from pipelines.study.config import Study
from pipelines.study.price import assumed_vocab_size

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


def saved_tokenizer(folder: Path, **special: str) -> Path:
    """A tokenizer as transformers saves one."""
    from transformers import PreTrainedTokenizerFast

    BpeTokenizer.train(["the quick brown fox\n"] * 20, 280).save(folder / "made")
    file = str(folder / "made" / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=file, **special or {"eos_token": "</s>"}).save_pretrained(str(folder))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the names of a model's files, and a tokenizer."""
    folder = tmp_path / "model"
    saved_tokenizer(folder / "tokenizer")
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"PK")
    return folder


@pytest.mark.parametrize(
    "setting", ["tokens.tokenizer", "autoencoder.pretrained.folder", "model.pretrained.folder", "samples.judge"]
)
@pytest.mark.parametrize("searched", [False, True])
def test_such_folders_are_refused_before_anything_is_trained(setting: str, searched: bool, model: Path) -> None:
    folder = model / "tokenizer" if setting == "tokens.tokenizer" else model
    choices = {"one": {setting: str(folder)}}
    values: dict[str, Any] = {"name": "a"} | (
        {"search": {"parameters": [{"name": "it", "choices": choices}]}} if searched else assign({}, choices["one"])
    )
    study = Study.model_validate(values)
    check_study(study)
    (folder / "tokenizer_config.json").write_text(POINTER)
    with pytest.raises(ConfigurationError, match=f"^{setting}={folder}: .*git lfs pull"):
        check_study(study)


def test_weights_of_a_judge_are_looked_at(model: Path) -> None:
    settings = Study.model_validate({"name": "a", "samples": {"judge": str(model)}})
    check_study(settings)
    (model / "pytorch_model.bin").write_text(POINTER)
    with pytest.raises(ConfigurationError, match="git lfs pull"):
        check_study(settings)
    (model / "config.json").write_text("[")
    with pytest.raises(ConfigurationError, match=r"config\.json is no JSON"):
        check_study(settings)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "no config.json"), ("pytorch_model.bin", "no weights"), ("tokenizer", "no tokenizer")],
)
def test_a_judge_has_all_that_it_needs(missing: str, message: str, model: Path) -> None:
    study = Study.model_validate({"name": "a", "samples": {"judge": str(model)}})
    (shutil.rmtree if missing == "tokenizer" else Path.unlink)(model / missing)
    with pytest.raises(ConfigurationError, match=f"^samples.judge={model}: {model} has {message}.*: bring all files"):
        check_study(study)


def test_tokenizers_in_another_encoding_are_refused_with_the_way_out(tmp_path: Path) -> None:
    study = Study.model_validate({"name": "a", "tokens": {"tokenizer": str(tmp_path)}})
    (tmp_path / "tokenizer.json").write_text('{"model": {}}', encoding="utf-16")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json is UTF-16 text, .*iconv -f UTF-16"):
        check_study(study)


def test_a_folder_without_a_tokenizer_is_named_with_the_way_out(tmp_path: Path) -> None:
    folder, store = tmp_path / "only", tmp_path / "runs"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 32000}')
    for command in ("plan", "run"):
        words = [command, "smoke", f"tokens.tokenizer={folder}", "--store", str(store)]
        refused = CliRunner().invoke(app, words).exception
        assert isinstance(refused, ConfigurationError)
        assert f"{folder} has no tokenizer.json: bring all files that save_pretrained wrote" in str(refused)
    assert not store.exists(), "before anything runs"


def test_a_tokenizer_without_an_end_of_text_is_refused_before_the_corpus(tmp_path: Path) -> None:
    folder = saved_tokenizer(tmp_path / "made", unk_token="?")
    with pytest.raises(ConfigurationError, match="has no EOS token"):
        check_study(Study.model_validate({"name": "a", "tokens": {"tokenizer": str(folder)}}))


def test_a_path_that_is_no_folder_is_no_name_on_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_tokenizer(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    for name, message in [
        ("made/tokenizer.json", "made/tokenizer.json is a file: name the folder that it lies in"),
        ("./mad", f"there is no folder {tmp_path}/mad"),
        (str(tmp_path / "mad"), f"there is no folder {tmp_path}/mad"),
    ]:
        with pytest.raises(ConfigurationError, match=f"^tokens.tokenizer={name}: {message}"):
            check_study(Study.model_validate({"name": "a", "tokens": {"tokenizer": name}}))
    check_study(Study.model_validate({"name": "a", "tokens": {"tokenizer": "./made"}}))


def test_the_vocabulary_of_a_tokenizer_in_other_files_is_that_of_the_loaded_one(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    made = saved_tokenizer(tmp_path / "made", eos_token="<|endoftext|>")
    Tokenizer.from_file(str(made / "tokenizer.json")).model.save(str(made))
    (made / "tokenizer.json").unlink()
    (made / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    study = Study.model_validate({"name": "a", "tokens": {"tokenizer": str(made)}})
    check_study(study)
    assert assumed_vocab_size(study.tokens) == HuggingFaceTokenizer.from_pretrained(str(made)).vocab_size
