"""``save_pretrained``, ``from_pretrained`` and the Auto classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from calm_bench.autoencoder import Autoencoder, load_autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.hub import CalmBenchCalm, wrap
from calm_bench.lm import Calm, ChunkLanguageModel, TokenModel, load_language_model
from calm_bench.lm.folder import build_language_model
from calm_bench.weights import WeightsError

VOCAB_SIZE = 31
Network = Autoencoder | ChunkLanguageModel


def build(kind: str, head: str = "energy") -> Network:
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(latent_size=4, hidden_size=8, intermediate_size=12), 2, VOCAB_SIZE)
    if kind == "autoencoder":
        return autoencoder.eval()
    settings: dict[str, Any] = {
        "kind": kind,
        "chunk_size": 1 if kind == "token" else 2,
        "hidden_size": 8,
        "intermediate_size": 12,
    }
    settings |= {"num_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head": {"kind": head}}
    config = LanguageModel.model_validate(settings)
    return build_language_model(config, VOCAB_SIZE, autoencoder if kind == "calm" else None, seed=0).eval()


def load(kind: str, folder: Path) -> Network:
    return load_autoencoder(folder) if kind == "autoencoder" else load_language_model(folder)


def assert_equal(found: nn.Module, expected: nn.Module) -> None:
    """Bit-equal tensors, the same names, computed tables and frozen parameters."""
    theirs, ours = found.state_dict(), expected.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    tables = dict(found.named_buffers())
    assert all(torch.equal(tables[name], table) for name, table in expected.named_buffers())
    trained = {name: parameter.requires_grad for name, parameter in expected.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in found.named_parameters()} == trained


KINDS = pytest.mark.parametrize("kind", ["calm", "token", "autoencoder"])


@KINDS
def test_round_trip_is_bit_equal(kind: str, tmp_path: Path) -> None:
    network = build(kind)
    wrap(network).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).model_type == f"calm_bench_{kind}"
    loaded = AutoModel.from_pretrained(tmp_path)
    assert_equal(loaded.network, network)
    assert_equal(load(kind, tmp_path), network)
    assert not loaded.training
    tokens = torch.randint(VOCAB_SIZE, (2, 8))
    outputs = [tuple(model(tokens).values()) for model in (wrap(network), loaded)]
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_the_end_of_documents_is_kept(tmp_path: Path) -> None:
    network = build("token")
    assert isinstance(network, TokenModel)
    masked = LanguageModel.model_validate(network.config.model_dump() | {"document_masking": True})
    masking = build_language_model(masked, VOCAB_SIZE, None, 0, document_end=3).eval()
    wrap(masking).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    tokens = torch.randint(VOCAB_SIZE, (2, 8))
    assert loaded.network.document_end == 3
    assert torch.equal(loaded.network.hidden_states(tokens), masking.hidden_states(tokens))


@KINDS
def test_folders_of_training_are_read_too(kind: str, tmp_path: Path) -> None:
    network = build(kind)
    network.save(tmp_path)
    assert_equal(AutoModel.from_pretrained(tmp_path).network, network)


@KINDS
def test_shards(kind: str, tmp_path: Path) -> None:
    network = build(kind)
    wrap(network).save_pretrained(tmp_path, max_shard_size="2KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_equal(AutoModel.from_pretrained(tmp_path).network, network)
    assert_equal(load(kind, tmp_path), network)


@pytest.mark.parametrize("head", ["diffusion", "flow"])
def test_tables_that_no_file_holds_are_computed(head: str, tmp_path: Path) -> None:
    network = build("calm", head)
    assert isinstance(network, Calm)
    wrap(network).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).network
    hidden = torch.randn(3, 8)
    draws = [model.draw(hidden, 2, torch.Generator().manual_seed(1)) for model in (network, loaded)]
    assert torch.equal(*draws)


def test_the_output_stays_tied_to_the_embedding(tmp_path: Path) -> None:
    wrap(build("autoencoder")).save_pretrained(tmp_path)
    shapes = [list(tensor.shape) for tensor in load_file(tmp_path / "model.safetensors").values()]
    assert shapes.count([VOCAB_SIZE, 8]) == 1
    network = AutoModel.from_pretrained(tmp_path).network
    latents = torch.randn(3, 4)
    with torch.no_grad():
        network.encoder.embedding.weight.zero_()
    assert network.logits(latents).abs().max() == 0


def test_saving_a_loaded_model_again_changes_no_byte_of_its_weights(tmp_path: Path) -> None:
    build("calm").save(tmp_path / "a")
    AutoModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    AutoModel.from_pretrained(tmp_path / "b").save_pretrained(tmp_path / "c")
    b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "bc")
    assert b == c


def test_the_autoencoder_of_a_model_in_training_stays_in_evaluation_mode_and_frozen(tmp_path: Path) -> None:
    build("calm").save(tmp_path)
    model = AutoModel.from_pretrained(tmp_path).train()
    assert model.network.training
    assert not model.network.autoencoder.training
    model(torch.randint(VOCAB_SIZE, (2, 8)), return_loss=True).loss.backward()
    assert model.network.backbone.embed_tokens.weight.grad is not None
    assert all(parameter.grad is None for parameter in model.network.autoencoder.parameters())


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_a_folder_that_does_not_fit_is_refused(change: str, tmp_path: Path) -> None:
    build("calm").save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors |= {"stranger": torch.zeros(1)} if change == "unexpected" else {}
    if change == "missing":
        del tensors["head.final.in_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    name = "stranger" if change == "unexpected" else r"head\.final\.in_proj\.weight"
    with pytest.raises(WeightsError, match=f"{change} {name}"):
        AutoModel.from_pretrained(tmp_path)


def test_nothing_takes_a_chunk_model_for_a_model_with_logits(tmp_path: Path) -> None:
    build("calm").save(tmp_path)
    with pytest.raises(ValueError, match="CalmBenchCalmConfig"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_classes_load_by_name(tmp_path: Path) -> None:
    network = build("calm")
    wrap(network).save_pretrained(tmp_path)
    loaded, report = CalmBenchCalm.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert_equal(loaded.network, network)
