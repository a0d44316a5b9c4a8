"""Our models in the reference's format and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from calm_bench.autoencoder import Autoencoder
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.export import ExportError, Format, export_reference
from calm_bench.lm import Calm, TokenModel, load_language_model
from calm_bench.pretrained import load_released_autoencoder, load_released_calm
from calm_bench.training.pretrained_parts import start_from
from calm_bench.weights import WeightsError

VOCAB_SIZE = 31
NOISE = {"kind": "diffusion", "objective": "noise", "time_features": 256}
FLOW = {"kind": "flow", "skip": False, "time_levels": 1000, "time_features": 256}


def build_autoencoder(**settings: Any) -> Autoencoder:
    sizes = {"latent_size": 4, "hidden_size": 8, "intermediate_size": 12, "num_encoder_layers": 2}
    config = AutoencoderConfig.model_validate({**sizes, "num_decoder_layers": 4, "dropped_token": 0, **settings})
    return Autoencoder(config, 2, VOCAB_SIZE).eval()


def build_calm(head: dict[str, Any] | None = None, **settings: Any) -> Calm:
    """With grouped queries: two heads share their keys and values."""
    sizes = {"chunk_size": 2, "hidden_size": 8, "intermediate_size": 12, "num_layers": 2, "num_attention_heads": 4}
    config = LanguageModel.model_validate({**sizes, "num_key_value_heads": 2, "head": head or {"kind": "energy"}})
    return Calm(config, build_autoencoder(**settings)).eval()


def assert_equal(found: nn.Module, expected: nn.Module) -> None:
    theirs, ours = found.state_dict(), expected.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


@pytest.mark.parametrize("format", ["bin", "safetensors"])
def test_autoencoder(format: Format, tmp_path: Path) -> None:
    model = build_autoencoder()
    assert export_reference(model, tmp_path, eos_id=5, format=format) == []
    loaded = load_released_autoencoder(tmp_path)
    assert_equal(loaded, model)
    assert loaded.config == model.config.model_copy(update={"training": loaded.config.training})
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"]) == (5, 5)


def test_positions_and_norms_of_other_checkpoints(tmp_path: Path) -> None:
    model = build_calm(rms_norm_eps=1e-3)
    usual, tokens = model.hidden_states(torch.arange(12)[None]), torch.arange(12)[None]
    settings = {"rope_theta": 5e5, "rms_norm_eps": 1e-2}
    other = Calm(model.config.model_copy(update=settings), model.autoencoder).eval()
    other.load_state_dict(model.state_dict())
    expected = other.hidden_states(tokens)
    assert not torch.isclose(expected, usual).all()
    export_reference(other, tmp_path, eos_id=5, ae_path="elsewhere")
    export_reference(other.autoencoder, tmp_path / "inner")
    loaded = load_released_calm(tmp_path)
    assert torch.equal(loaded.hidden_states(tokens), expected)
    assert torch.equal(
        load_released_autoencoder(tmp_path / "inner").encode(tokens)[0], model.autoencoder.encode(tokens)[0]
    )
    # In files and identities of this project they appear only where they are unusual.
    other.save(tmp_path / "own")
    assert torch.equal(load_language_model(tmp_path / "own").hidden_states(tokens), expected)
    assert other.description()["model"].keys() - model.description()["model"].keys() == settings.keys()
    # transformers 5 writes the base of the positions elsewhere.
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    path.write_text(json.dumps(config))
    assert torch.equal(load_released_calm(tmp_path).hidden_states(tokens), expected)


@pytest.mark.parametrize("format", ["bin", "safetensors"])
@pytest.mark.parametrize("head", [{"kind": "energy", "noise_size": 6, "alpha": 1.5}, NOISE, FLOW])
def test_calm(head: dict[str, Any], format: Format, tmp_path: Path) -> None:
    model = build_calm(head)
    export_reference(model, tmp_path, eos_id=5, format=format)
    loaded = load_released_calm(tmp_path)
    assert_equal(loaded, model)
    assert loaded.config.key_value_heads == 2
    if head["kind"] == "energy":
        assert loaded.config.head == model.config.head
    assert_equal(load_released_autoencoder(tmp_path / "autoencoder"), model.autoencoder)


def test_tied_tensors_have_one_storage_in_a_pickle(tmp_path: Path) -> None:
    export_reference(build_calm(), tmp_path, eos_id=5)
    tensors = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    for second, first in {
        "ae_model.decoder.lm_head_weight": "ae_model.encoder.embed_tokens.weight",
        "generative_head.final_layer.linears.2.bias": "mlp_generator.final_layer.linears.2.bias",
    }.items():
        assert tensors[second].data_ptr() == tensors[first].data_ptr()


def test_what_the_reference_does_otherwise_is_noted(tmp_path: Path) -> None:
    model = build_calm({"kind": "energy", "num_targets": 10}, dropped_token="mask", latent_dropout=0.2)
    notes = " ".join(export_reference(model, tmp_path))
    for part in ("id 0", "one dropout", "100 target draws", "pad_token_id"):
        assert part in notes
    # Encoding and decoding are the same all the same.
    loaded, tokens = load_released_calm(tmp_path), torch.randint(VOCAB_SIZE, (2, 8))
    assert torch.equal(loaded.autoencoder.encode(tokens)[0], model.autoencoder.encode(tokens)[0])
    assert torch.equal(loaded.hidden_states(tokens), model.hidden_states(tokens))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"kind": "energy", "width": 12}, "as wide as the backbone"),
        ({**NOISE, "objective": "velocity"}, "predicts the noise"),
        ({**FLOW, "skip": True}, "whole velocity"),
        ({**FLOW, "time_features": 64}, "256 time features"),
        ({"kind": "shortcut"}, "no head shortcut"),
        ({"kind": "drifting"}, "no head drifting"),
    ],
)
def test_models_without_a_counterpart_are_refused(head: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export_reference(build_calm(head), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_autoencoder_that_reads_the_chunk_before_is_refused(tmp_path: Path) -> None:
    for model in (build_autoencoder(context_chunks=1), build_calm(context_chunks=1)):
        with pytest.raises(ExportError, match="reads every chunk by itself, this one the chunk before too"):
            export_reference(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_that_reads_inside_documents_is_refused(tmp_path: Path) -> None:
    model = build_calm()
    model.document_end = 3
    with pytest.raises(ExportError, match="the reference reads across documents"):
        export_reference(model, tmp_path)


def test_a_token_model_is_refused(tmp_path: Path) -> None:
    config = LanguageModel(kind="token", hidden_size=8, intermediate_size=12, num_layers=1, num_attention_heads=2)
    with pytest.raises(ExportError, match="plain Llama"):
        export_reference(TokenModel(config, VOCAB_SIZE), tmp_path)


def test_a_separate_autoencoder(tmp_path: Path) -> None:
    model = build_calm()
    export_reference(model, tmp_path, eos_id=5, format="safetensors", ae_path="/nowhere/autoencoder")
    export_reference(model.autoencoder, tmp_path / "ae")
    path = tmp_path / "model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if not n.startswith("ae_model.")}, path)
    with pytest.raises(WeightsError, match=r"carries no autoencoder: name its folder \(--autoencoder FOLDER"):
        load_released_calm(tmp_path)
    assert_equal(load_released_calm(tmp_path, tmp_path / "ae"), model)
    # A training that goes on from it has been given its autoencoder by then.
    begun = Calm(model.config, model.autoencoder)
    start_from(begun, tmp_path)
    assert_equal(begun, model)
    assert begun.autoencoder is model.autoencoder
    export_reference(build_autoencoder(latent_size=6), tmp_path / "other")
    with pytest.raises(WeightsError, match="latent_size is 6, expected 4"):
        load_released_calm(tmp_path, tmp_path / "other")


def test_one_of_two_tied_names_is_enough_and_different_tensors_are_refused(tmp_path: Path) -> None:
    model = build_calm()
    export_reference(model, tmp_path, eos_id=5, format="safetensors")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    for lacking in (("mlp_generator.", "ae_model.encoder.embed"), ("generative_head.", "ae_model.decoder.lm_head")):
        save_file({name: tensor for name, tensor in tensors.items() if not name.startswith(lacking)}, path)
        assert_equal(load_released_calm(tmp_path), model)
    tensors["ae_model.decoder.lm_head_weight"] = torch.zeros(VOCAB_SIZE, 8)
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"decoder\.lm_head_weight differs from encoder\.embed_tokens\.weight"):
        load_released_calm(tmp_path)


def test_differences_are_listed_in_the_references_words(tmp_path: Path) -> None:
    export_reference(build_calm(), tmp_path, eos_id=5, format="safetensors")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    for name in ("transformer.layers.1.mlp.up_proj.weight", "generative_head.norm_noise.bias"):
        del tensors[name]
    del tensors["mlp_generator.norm_noise.bias"]
    tensors["lm_head.weight"] = torch.zeros(1)
    tensors["transformer.layers.0.self_attn.k_proj.weight"] = torch.zeros(8, 8)
    tensors["embed_proj.0.bias"] = torch.zeros(16, dtype=torch.int64)
    save_file(tensors, path)
    with pytest.raises(WeightsError) as error:
        load_released_calm(tmp_path)
    for part in (
        "missing transformer.layers.1.mlp.up_proj.weight",
        "missing mlp_generator.norm_noise.bias",
        "unexpected lm_head.weight",
        "transformer.layers.0.self_attn.k_proj.weight has shape [8, 8], expected [4, 8]",
        "embed_proj.0.bias is of type torch.int64",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"factor": 8}}, "rope_scaling is .*, but the models here have None"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type is 'llama3'"),
        ({"patch_size": None}, "patch_size"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"architectures": ["LlamaForCausalLM"]}, "holds a LlamaForCausalLM"),
        ({"latent_size": 9}, r"hidden_to_latent\.weight has shape \[8, 8\], expected \[18, 8\]"),
    ],
)
def test_a_configuration_that_cannot_be_used(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    export_reference(build_calm(), tmp_path, eos_id=5)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    with pytest.raises(WeightsError, match=message):
        load_released_calm(tmp_path)


def test_query_groups_that_the_configuration_leaves_out_are_not_guessed(tmp_path: Path) -> None:
    """The reference's default of 12 fits few models: without the number there are no groups, or the shapes differ."""
    export_reference(build_calm(), tmp_path, eos_id=5)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["num_key_value_heads"]
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"k_proj\.weight has shape \[4, 8\], expected \[8, 8\]"):
        load_released_calm(tmp_path)
