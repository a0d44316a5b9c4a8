"""Model folders: complete or refused, and never code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from calm_bench.autoencoder import Autoencoder, load_autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.lm import ChunkLanguageModel, load_language_model
from calm_bench.lm.folder import build_language_model
from calm_bench.pretrained import load_released_autoencoder
from calm_bench.weights import WeightsError

VOCAB_SIZE = 31


def autoencoder(chunk_size: int = 2) -> Autoencoder:
    config = AutoencoderConfig(latent_size=4, hidden_size=8, intermediate_size=12)
    return Autoencoder(config, chunk_size, VOCAB_SIZE).eval()


def language_model(kind: str, seed: int = 0) -> ChunkLanguageModel:
    settings = {"kind": kind, "chunk_size": 1 if kind == "token" else 2, "hidden_size": 8, "intermediate_size": 12}
    settings |= {"num_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LanguageModel.model_validate(settings)
    return build_language_model(config, VOCAB_SIZE, autoencoder() if kind == "calm" else None, seed).eval()


def test_autoencoder_round_trip_is_bit_equal_and_tied(tmp_path: Path) -> None:
    model = autoencoder()
    model.save(tmp_path)
    loaded = load_autoencoder(tmp_path)
    tokens = torch.randint(VOCAB_SIZE, (3, 6))
    assert torch.equal(model.encode(tokens)[0], loaded.encode(tokens)[0])
    latents = torch.randn(3, 4)
    assert torch.equal(model.logits(latents), loaded.logits(latents))
    # One parameter for embedding and output: two optimizer updates of one weight were the reference's fault.
    assert sum("embedding" in name for name, _ in loaded.named_parameters() if "mask" not in name) == 1


@pytest.mark.parametrize("kind", ["calm", "token"])
def test_language_model_round_trip_is_bit_equal(kind: str, tmp_path: Path) -> None:
    model = language_model(kind)
    model.save(tmp_path)
    loaded = load_language_model(tmp_path)
    tokens = torch.randint(VOCAB_SIZE, (2, 8))
    assert torch.equal(model.hidden_states(tokens), loaded.hidden_states(tokens))
    draws = [m.draw(m.hidden_states(tokens), 3, torch.Generator().manual_seed(1)) for m in (model, loaded)]
    assert torch.equal(*draws)
    assert draws[0].shape == (3, 2, 8 // model.chunk_size, model.chunk_size)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    """Of a token model: a CALM's autoencoder is handed in, with weights of its own."""
    first = language_model("token").state_dict()
    torch.rand(7)
    second, other = language_model("token").state_dict(), language_model("token", seed=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_differences_are_listed_and_nothing_is_half_loaded(tmp_path: Path) -> None:
    autoencoder().save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["stranger"] = torch.zeros(1)
    tensors["encoder.norm.weight"] = torch.zeros(9)
    del tensors["decoder.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError) as error:
        load_autoencoder(tmp_path)
    shape = "encoder.norm.weight has shape [9], expected [8]"
    for part in ("missing decoder.norm.weight", "unexpected stranger", shape):
        assert part in str(error.value)


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    autoencoder().save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize("content", [None, "no json", json.dumps({"model_type": "llama"}), "[]"])
def test_a_folder_that_holds_something_else(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError):
        load_autoencoder(tmp_path)


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(Path(os.environ["CALM_BENCH_TEST_MARK"])),))


def test_a_pickle_that_carries_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "executed"
    monkeypatch.setenv("CALM_BENCH_TEST_MARK", str(mark))
    (tmp_path / "config.json").write_text("{}")
    torch.save({"weight": _Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin carries more than tensors"):
        load_released_autoencoder(tmp_path)
    assert not mark.exists()
