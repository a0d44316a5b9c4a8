"""The reference's checkpoints, however they are cut up, through our models and back into its format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel

from calm_bench.autoencoder import Autoencoder
from calm_bench.export import Format, export_reference
from calm_bench.hub import wrap
from calm_bench.lm import Calm
from calm_bench.pretrained import load_released_autoencoder, load_released_calm
from tests.calm_bench.parity.reference_data import GOLDEN

AUTOENCODERS = ["autoencoder_k1", "autoencoder_k4"]
MODELS = ["energy_k1", "energy_k4", "diffusion_k4", "flow_k4"]
WITHOUT_MEANING = {"ae_path", "transformers_version", "pretraining_tp", "max_position_embeddings", "bos_token_id"}
"""Settings that no computation of the reference depends on, and the BOS, which its models here never read."""


def checkpoint(name: str) -> Path:
    return GOLDEN / name if name in AUTOENCODERS else GOLDEN / name / "model"


def load(name: str, folder: Path) -> Autoencoder | Calm:
    return load_released_autoencoder(folder) if name in AUTOENCODERS else load_released_calm(folder)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(folder / "pytorch_model.bin", weights_only=True)
    return found


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", AUTOENCODERS + MODELS)
@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@pytest.mark.parametrize("index", [True, False])
def test_shards(name: str, suffix: str, index: bool, tmp_path: Path) -> None:
    tensors = tensors_of(checkpoint(name))
    stem = "pytorch_model" if suffix == "bin" else "model"
    places: dict[str, str] = {}
    for shard in range(3):
        part = {key: tensors[key].clone() for key in sorted(tensors)[shard::3]}
        file = tmp_path / f"{stem}-{shard + 1:05}-of-00003.{suffix}"
        torch.save(part, file) if suffix == "bin" else save_file(part, file)
        places |= dict.fromkeys(part, file.name)
    if index:
        (tmp_path / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (tmp_path / "config.json").write_bytes((checkpoint(name) / "config.json").read_bytes())
    assert_equal(load(name, tmp_path).state_dict(), load(name, checkpoint(name)).state_dict())


@pytest.mark.parametrize("name", AUTOENCODERS + MODELS)
def test_export_gives_the_checkpoint_back(name: str, tmp_path: Path) -> None:
    export_reference(load(name, checkpoint(name)), tmp_path, eos_id=255, pad_id=256)
    assert_equal(tensors_of(tmp_path), tensors_of(checkpoint(name)))
    found, expected = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, checkpoint(name)))
    if name in ("diffusion_k4", "flow_k4"):  # They do not read these.
        expected = {key: value for key, value in expected.items() if key not in ("noise_size", "beta")}
    assert found.keys() >= expected.keys() - WITHOUT_MEANING
    assert {key: found[key] for key in expected if key not in WITHOUT_MEANING} == {
        key: value for key, value in expected.items() if key not in WITHOUT_MEANING
    }


@pytest.mark.parametrize("format", ["bin", "safetensors"])
@pytest.mark.parametrize("name", AUTOENCODERS + MODELS)
def test_exports_load_like_the_checkpoint(name: str, format: Format, tmp_path: Path) -> None:
    model = load(name, checkpoint(name))
    export_reference(model, tmp_path, format=format)
    assert_equal(load(name, tmp_path).state_dict(), model.state_dict())


@pytest.mark.parametrize("name", ["energy_k1", "energy_k4"])
def test_a_separate_autoencoder_gives_the_same_model(name: str, tmp_path: Path) -> None:
    model = load_released_calm(checkpoint(name))
    export_reference(model.autoencoder, tmp_path / "ae")
    own = {key: tensor for key, tensor in tensors_of(checkpoint(name)).items() if not key.startswith("ae_model.")}
    torch.save(own, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((checkpoint(name) / "config.json").read_bytes())
    assert_equal(load_released_calm(tmp_path, tmp_path / "ae").state_dict(), model.state_dict())


@pytest.mark.parametrize("name", AUTOENCODERS + MODELS)
def test_a_released_model_moves_to_the_auto_classes(name: str, tmp_path: Path) -> None:
    model = load(name, checkpoint(name))
    wrap(model).save_pretrained(tmp_path)
    assert_equal(AutoModel.from_pretrained(tmp_path).network.state_dict(), model.state_dict())
