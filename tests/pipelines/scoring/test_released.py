"""Released checkpoints on the command line, with the tokenizer that they bring or one that is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.export import export_reference
from calm_bench.lm import Calm
from calm_bench.opening import tokenizer_setting
from pipelines.app.cli import main
from tests.calm_bench.parity.reference_data import GOLDEN

SHORT = ["corpus.source=markov", "corpus.markov.num_documents=12", "corpus.markov.document_length=300"]
SHORT += ["evaluation.max_windows=4", "evaluation.context_length=64", "evaluation.num_samples=2"]


def released(folder: Path, vocab_size: int = 257) -> Path:
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(latent_size=8, hidden_size=16, intermediate_size=24), 2, vocab_size)
    config = LanguageModel(chunk_size=2, hidden_size=16, intermediate_size=24, num_layers=1)
    export_reference(Calm(config, autoencoder), folder, eos_id=vocab_size - 1)
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["calm-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, ended.value.code


def scored(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    command(monkeypatch, "eval", *arguments)
    return capsys.readouterr().out


def test_bytes_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, store = str(released(tmp_path / "model")), str(tmp_path / "runs")
    assert "BrierLM" in scored(monkeypatch, capsys, model, "--store", store, "--tokenizer", "bytes", *SHORT)
    command(monkeypatch, "generate", model, "--store", store, "--tokenizer", "bytes", "--prompt", "ab", "--tokens", "4")
    assert capsys.readouterr().out.startswith("ab")
    command(monkeypatch, "generate", model, "--store", store, "--prompt", "97 98", "--tokens", "4")
    ids = capsys.readouterr().out.split()
    assert ids[:2] == ["97", "98"]
    assert all(0 <= int(token) < 257 for token in ids)


def probed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    command(monkeypatch, "probe", *arguments, "--json", "--tokens", "200", *SHORT[:3])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_autoencoders_are_probed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By itself, inside a CALM model, and beside one that carries none: the same probes."""
    model, store = released(tmp_path / "model"), ["--store", str(tmp_path / "runs"), "--tokenizer", "bytes"]
    alone = probed(monkeypatch, capsys, str(model / "autoencoder"), *store)
    assert (alone["chunk_size"], alone["latent_size"], alone["posterior"]["num_tokens"]) == (2, 8, 200)
    assert probed(monkeypatch, capsys, str(model), *store) == alone
    weights = model / "pytorch_model.bin"
    tensors = torch.load(weights, weights_only=True)
    torch.save({name: tensor for name, tensor in tensors.items() if not name.startswith("ae_model.")}, weights)
    separate = ["--autoencoder", str(model / "autoencoder")]
    assert probed(monkeypatch, capsys, str(model), *store, *separate) == alone


@pytest.mark.parametrize("place", ["model", "model/tokenizer", "elsewhere"])
def test_a_hugging_face_tokenizer(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = released(tmp_path / "model", vocab_size=28)
    vocabulary = {letter: index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz")} | {"<e>": 26, "<u>": 27}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<u>"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>").save_pretrained(tmp_path / place)
    named = ["--tokenizer", str(tmp_path / place)] if place == "elsewhere" else []
    assert tokenizer_setting(model) == (None if named else str(tmp_path / place))
    arguments = [str(model), "--store", str(tmp_path / "runs"), *named, *SHORT]
    assert "BrierLM" in scored(monkeypatch, capsys, *arguments)


def test_without_a_tokenizer_the_error_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["calm-bench", "eval", str(released(tmp_path)), "--store", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--tokenizer" in capsys.readouterr().err


def test_a_tokenizer_of_another_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = str(released(tmp_path / "model", vocab_size=28))
    arguments = ["eval", model, "--store", str(tmp_path / "runs"), "--tokenizer", "bytes", *SHORT]
    monkeypatch.setattr(sys, "argv", ["calm-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "has 257 tokens" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["energy_k1", "energy_k4", "diffusion_k4", "flow_k4"])
def test_golden_checkpoints_are_continued_and_scored(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, store = str(GOLDEN / name), str(tmp_path / "runs")
    command(monkeypatch, "generate", model, "--store", store, "--prompt", "5 17 42 5", "--tokens", "6")
    assert capsys.readouterr().out.startswith("5 17 42 5")
    assert "BrierLM" in scored(monkeypatch, capsys, model, "--store", store, "--tokenizer", "bytes", *SHORT)
