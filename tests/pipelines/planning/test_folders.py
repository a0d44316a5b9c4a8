"""Folders that a study names are looked at before anything is trained: not after the trainings before they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calm_bench.overrides import ConfigurationError, assign
from pipelines.planning.preflight import check_study
from pipelines.study.config import Study

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the names of a model's files: nothing is loaded here."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("config.json", "tokenizer/tokenizer_config.json"):
        (folder / name).write_text("{}")
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


def test_tokenizers_in_another_encoding_are_refused_with_the_way_out(tmp_path: Path) -> None:
    study = Study.model_validate({"name": "a", "tokens": {"tokenizer": str(tmp_path)}})
    (tmp_path / "tokenizer.json").write_text('{"model": {}}', encoding="utf-16")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json is UTF-16 text, .*iconv -f UTF-16"):
        check_study(study)
